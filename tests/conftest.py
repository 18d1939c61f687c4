"""Where the tests find what does not live in the repository."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

Arrays = dict[str, np.ndarray]


def _shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(('shared', *parts))}, which lies beside the repository and is not here")
    return path


@pytest.fixture(scope="session")
def shared() -> Callable[..., Path]:
    """`shared("data", "coco_eval")`: a path beside the repository; the test is skipped where it is absent."""
    return _shared


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Arrays]:
    """`reference("nms")`: the arrays of one file of published outputs (shared/reference/logocap)."""

    def load(name: str) -> Arrays:
        with np.load(_shared("reference", "logocap", f"{name}.npz")) as archive:
            return {key: archive[key] for key in archive.files}

    return load
