"""What every backend has to keep: the same numbers, the same checks, safe from several threads."""

import importlib.util
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from posesdk_runtimes.base import Runtime
from posesdk_runtimes.errors import ArtifactError, RuntimeFault
from posesdk_runtimes.registry import open_runtime

MODULES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tflite": "ai_edge_litert"}
FILES = {"tflite": ("convolution_tflite", "adder_tflite")}


@pytest.fixture(params=list(MODULES))
def backend(request: pytest.FixtureRequest) -> str:
    if importlib.util.find_spec(MODULES[request.param]) is None:
        pytest.skip(f"{MODULES[request.param]} is not installed")
    return str(request.param)


@pytest.fixture
def convolution(backend: str, request: pytest.FixtureRequest) -> Path:
    """The graph of the fixture `graph` in the backend's format."""
    path: Path = request.getfixturevalue(FILES.get(backend, ("graph", "adder"))[0])
    return path


@pytest.fixture
def sum_of_two(backend: str, request: pytest.FixtureRequest) -> Path:
    """The graph of the fixture `adder` in the backend's format."""
    path: Path = request.getfixturevalue(FILES.get(backend, ("graph", "adder"))[1])
    return path


@pytest.fixture
def runtime(backend: str, convolution: Path) -> Iterator[Runtime]:
    opened = open_runtime(convolution, runtime=backend, threads=1)
    yield opened
    opened.close()


def picture(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def brute_maps(image: np.ndarray, weight: np.ndarray) -> np.ndarray:
    batch, height, width, _ = image.shape
    maps = np.zeros((batch, len(weight), height - 2, width - 2))
    for b, c, y, x in np.ndindex(*maps.shape):
        window = image[b, y : y + 3, x : x + 3].astype(np.float64).transpose(2, 0, 1)
        maps[b, c, y, x] = max(0.0, float((window * weight[c]).sum()))
    return maps


def test_tensor_specs_name_shapes_and_types(runtime: Runtime) -> None:
    (image,) = runtime.inputs
    assert (image.name, image.shape, image.dtype) == ("image", (None, None, None, 3), np.dtype(np.uint8))
    assert [(spec.name, len(spec.shape), spec.dtype) for spec in runtime.outputs] == [
        ("maps", 4, np.dtype(np.float32)),
        ("level", 1, np.dtype(np.float32)),
    ]


@pytest.mark.parametrize("shape", [(1, 9, 8, 3), (3, 5, 7, 3), (2, 3, 3, 3)], ids=str)
def test_numbers_equal_a_convolution_by_hand_for_any_batch_and_size(
    runtime: Runtime, weight: np.ndarray, shape: tuple[int, ...]
) -> None:
    image = picture(1, *shape)
    expected = brute_maps(image, weight)
    result = runtime.run({"image": image})
    assert list(result) == ["maps", "level"]
    # float32 keeps 1e-6 of the largest sum here; bfloat16 would be off by some 1e-2.
    np.testing.assert_allclose(result["maps"], expected, rtol=0, atol=2e-6 * expected.max())
    np.testing.assert_allclose(result["level"], expected.mean(axis=(1, 2, 3)), rtol=2e-6)


def test_empty_batch_gives_empty_outputs(runtime: Runtime) -> None:
    assert runtime.run({"image": picture(1, 0, 9, 8, 3)})["maps"].shape == (0, 4, 7, 6)


def test_strided_and_read_only_arrays_are_taken(runtime: Runtime, weight: np.ndarray) -> None:
    image = picture(2, 1, 9, 8, 3)
    image.flags.writeable = False
    expected = brute_maps(image[:, ::-1, ::-1], weight)
    np.testing.assert_allclose(runtime.run({"image": image[:, ::-1, ::-1]})["maps"], expected, rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(runtime.run({"image": image})["maps"], brute_maps(image, weight), rtol=1e-5, atol=1e-2)


def test_outputs_belong_to_the_caller(runtime: Runtime) -> None:
    first = runtime.run({"image": picture(3, 1, 9, 8, 3)})
    kept = first["maps"].copy()
    first["level"][:] = -1
    second = runtime.run({"image": picture(4, 1, 9, 8, 3)})
    np.testing.assert_array_equal(first["maps"], kept)
    assert not np.array_equal(second["maps"], kept)
    assert second["level"] > 0


def test_eight_threads_each_get_their_own_result(runtime: Runtime) -> None:
    images = [picture(seed, 1 + seed % 3, 24 + seed, 40, 3) for seed in range(8)]
    alone = [runtime.run({"image": image})["maps"] for image in images]

    def repeat(index: int) -> bool:
        return all(np.array_equal(runtime.run({"image": images[index]})["maps"], alone[index]) for _ in range(40))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(repeat, range(8)))


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        pytest.param({}, r"expected the inputs \['image'\], got \[\]", id="missing"),
        pytest.param({"picture": picture(1, 1, 9, 8, 3)}, r"got \['picture'\]", id="unknown"),
        pytest.param(
            {"image": picture(1, 1, 9, 8, 3), "size": picture(1, 2)}, r"got \['image', 'size'\]", id="one too many"
        ),
        pytest.param({"image": picture(1, 9, 8, 3)}, r"shape \[\?, \?, \?, 3\], got \[9, 8, 3\]", id="rank"),
        pytest.param({"image": picture(1, 1, 9, 8, 4)}, r"\?, 3\], got \[1, 9, 8, 4\]", id="channels"),
        pytest.param({"image": np.zeros((1, 9, 8, 3), np.float32)}, "expected uint8, got float32", id="type"),
        pytest.param({"image": [[1]]}, "expected a numpy array, got list", id="no array"),
    ],
)
def test_feeds_that_do_not_fit_are_refused_and_harm_nothing(runtime: Runtime, feeds: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        runtime.run(feeds)  # type: ignore[arg-type]
    assert runtime.run({"image": picture(1, 1, 9, 8, 3)})["maps"].shape == (1, 4, 7, 6)


@pytest.mark.parametrize("threads", [1, 2])
def test_sizes_that_the_graph_cannot_compute_are_a_quiet_runtime_fault_and_harm_nothing(
    backend: str, sum_of_two: Path, threads: int, capfd: pytest.CaptureFixture[str]
) -> None:
    runtime = open_runtime(sum_of_two, runtime=backend, threads=threads)
    two, three = np.ones(2, np.float32), np.ones(3, np.float32)
    for _ in range(6):  # more often than any pool has places
        with pytest.raises(RuntimeFault, match=r"adder\."):
            runtime.run({"left": two, "right": three})
        np.testing.assert_array_equal(runtime.run({"left": two, "right": two})["sum"], [2, 2])
    assert capfd.readouterr() == ("", "")


def test_running_a_closed_graph_raises_and_closing_twice_is_harmless(runtime: Runtime) -> None:
    runtime.run({"image": picture(1, 1, 9, 8, 3)})
    runtime.close()
    runtime.close()
    for _ in range(6):
        with pytest.raises(RuntimeFault, match="closed"):
            runtime.run({"image": picture(1, 1, 9, 8, 3)})


def test_closing_while_threads_run_gives_results_or_runtime_faults(backend: str, convolution: Path) -> None:
    runtime = open_runtime(convolution, runtime=backend, threads=1)
    image = picture(1, 1, 64, 64, 3)
    expected = runtime.run({"image": image})["maps"]

    def work(index: int) -> int:
        done = 0
        try:
            while True:
                np.testing.assert_array_equal(runtime.run({"image": image})["maps"], expected)
                done += 1
                if index == 0 and done == 5:
                    runtime.close()
        except RuntimeFault:
            return done

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(8))) >= 5


@pytest.mark.parametrize("content", [b"", b"garbage", None], ids=["empty", "garbage", "missing"])
def test_a_broken_file_is_an_artifact_error_that_names_it(backend: str, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"broken\.onnx"):
        open_runtime(path, runtime=backend)


def test_a_truncated_graph_is_an_artifact_error(backend: str, convolution: Path, tmp_path: Path) -> None:
    path = tmp_path / f"cut{convolution.suffix}"
    path.write_bytes(convolution.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"cut\."):
        open_runtime(path, runtime=backend)
