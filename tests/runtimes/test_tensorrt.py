"""TensorRT's runtime on a machine without a GPU: real results of a strict stand-in, and NVIDIA's own binding."""

import importlib.util
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posesdk_runtimes.cuda import Cuda
from posesdk_runtimes.tensorrt import TensorRTRuntime


def _fakes() -> Any:
    """The module fake_tensorrt.py beside this file (tests are imported without a package)."""
    name = "posesdk_tests_fake_tensorrt"
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, Path(__file__).with_name("fake_tensorrt.py"))
        assert specification is not None
        assert specification.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(sys.modules[name])
    return sys.modules[name]


fakes = _fakes()
VERSIONS = fakes.VERSIONS


@pytest.fixture
def cudart() -> Any:
    return fakes.Cudart(devices=2)


Opener = Callable[..., TensorRTRuntime]


@pytest.fixture
def open_engine(cudart: Any, tmp_path: Path) -> Opener:
    """`open_engine(version, use_graphs=..., **plan)`: a runtime of the stand-in engine, changed by `plan`."""

    def opened(version: str = "10.3.0", *, use_graphs: bool = False, device: str = "cuda:0", **plan: Any) -> Any:
        path = tmp_path / "model.engine"
        path.write_bytes(fakes.engine_bytes(version, **plan))
        module = fakes.make_tensorrt(cudart, version)
        cuda = Cuda(cudart, "libcudart.so.12")
        runtime = TensorRTRuntime(path, device=device, use_graphs=use_graphs, module=module, cuda=cuda)
        runtime.stand_in = module  # type: ignore[attr-defined]
        return runtime

    return opened


def picture(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, 4), dtype=np.uint8)


def by_hand(image: np.ndarray) -> tuple[list[list[int]], list[int]]:
    doubled = [[2 * int(value) + 1 for value in row] for row in image]
    return doubled, [sum(row) for row in doubled]


@pytest.mark.parametrize("use_graphs", [False, True], ids=["plain", "graphs"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_gives_the_numbers_for_sizes_that_come_and_go(
    open_engine: Opener, version: str, use_graphs: bool
) -> None:
    with_sizes = [1, 1, 1, 1, 1, 1, 8, 2, 2, 2, 2, 2, 2, 1, 5]
    runtime = open_engine(version, use_graphs=use_graphs)
    for seed, rows in enumerate(with_sizes):
        image = picture(seed, rows)
        result = runtime.run({"image": image})
        doubled, total = by_hand(image)
        assert list(result) == ["doubled", "total"]
        assert (result["doubled"].tolist(), result["total"].tolist()) == (doubled, total)
        assert result["doubled"].dtype == np.float32


def test_eight_threads(open_engine: Opener, cudart: Any) -> None:
    runtime = open_engine()

    def work(i: int) -> bool:
        ok = True
        for k in range(50):
            im = picture(i * 100 + k, 1 + (i + k // 10) % 8)
            ok &= runtime.run({"image": im})["doubled"].tolist() == by_hand(im)[0]
        return ok

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    print(cudart.live(), cudart.calls)
    runtime.close()
    assert cudart.live() == {}
