"""Fixtures of the tests of rendered people: they need the assets beside the repository, and EGL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from posesdk_runtimes.errors import DeviceUnavailableError


@pytest.fixture(scope="session")
def assets(shared) -> Iterator[Path]:
    """The unpacked MakeHuman assets."""
    from posesdk_training.synthetic.assets import opened_assets

    with opened_assets(shared("data", "makehuman-cc0.tar.xz")) as folder:
        yield folder


@pytest.fixture(scope="session")
def base(assets):
    """Base mesh and rig."""
    from posesdk_training.synthetic.assets import AssetFolder
    from posesdk_training.synthetic.body import load_base

    return load_base(AssetFolder(assets))


@pytest.fixture(scope="session")
def cast(assets):
    """Three characters and 60 poses."""
    from posesdk_training.synthetic.assets import AssetFolder
    from posesdk_training.synthetic.cast import Cast

    return Cast(AssetFolder(assets), seed=5, size=3, poses=60)


@pytest.fixture(scope="session")
def renderer(cast):
    """A renderer of 160x160 pictures."""
    pytest.importorskip("moderngl", reason="people are rendered with moderngl")
    import numpy as np

    from posesdk_training.synthetic.materials import pattern_layers
    from posesdk_training.synthetic.renderer import Renderer

    try:
        return Renderer(cast, (160, 160), pattern_layers(np.random.default_rng(0), []))
    except DeviceUnavailableError as error:
        pytest.skip(f"no OpenGL without a window here: {error}")
