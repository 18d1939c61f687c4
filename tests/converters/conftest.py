"""What the tests of the conversion targets start from."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

SIZES = [(64, 96), (96, 64), (96, 96)]


def _pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    for index in range(count):
        height, width = SIZES[index % len(SIZES)]
        blocks = rng.integers(0, 256, (1, height // 8, width // 8, 3), dtype=np.uint8)
        yield blocks.repeat(8, axis=1).repeat(8, axis=2)


def _contexts(count, seed=0):
    rng = np.random.default_rng(seed)
    for index in range(count):
        yield np.maximum(rng.standard_normal((1 + index % 3, 17 * 4, 5, 5), dtype=np.float32), 0)


@pytest.fixture(scope="session")
def pictures() -> Callable:
    """`pictures(count, seed)`: inputs (1, H, W, 3) of the tiny trunk, of three sizes in turn."""
    return _pictures


@pytest.fixture(scope="session")
def contexts() -> Callable:
    """`contexts(count, seed)`: inputs of the tiny adapt graph, of 1, 2 and 3 persons in turn."""
    return _contexts


@pytest.fixture(scope="session")
def start_conversion(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """`start_conversion(feeds=..., notes=...)`: a conversion of the tiny model, its portable graphs in a folder."""
    pytest.importorskip("onnxscript", reason="the conversion needs the [convert] extra")
    from posesdk_converters.calibration import Feeds
    from posesdk_converters.portable import export_portable
    from posesdk_converters.target import Conversion
    from posesdk_training.checkpoint import load_model

    source = tmp_path_factory.mktemp("exported")
    model = load_model(tiny_checkpoint)
    portable = export_portable(model, source)
    calibration = Feeds(tuple(_pictures(12)), tuple(_contexts(12)))

    def start(**changes):
        folder = tmp_path_factory.mktemp("bundle")
        shutil.copytree(source, folder, dirs_exist_ok=True)
        return Conversion(**{"folder": folder, "portable": portable, "model": model, "feeds": calibration, **changes})

    return start
