"""TensorRT's runtime on a machine without a GPU: real results of a strict stand-in, and NVIDIA's own binding."""

import ast
import gc
import inspect
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fake_tensorrt as fakes
from posesdk.bundle import default_bundle_path, open_bundle
from posesdk.pipeline import Pipeline, open_pipeline
from posesdk.variants import select_variant
from posesdk_runtimes import registry
from posesdk_runtimes.errors import (
    ArtifactError,
    DeviceUnavailableError,
    MissingDependencyError,
    PoseSDKError,
    RuntimeFault,
)
from posesdk_runtimes.registry import open_runtime, runtime_devices
from posesdk_runtimes.tensorrt import lane as tensorrt_lane
from posesdk_runtimes.tensorrt import runtime as tensorrt_module
from posesdk_runtimes.tensorrt.cuda import Cuda, load_cuda
from posesdk_runtimes.tensorrt.runtime import TensorRTRuntime, load_tensorrt

VERSIONS = fakes.VERSIONS
each_version = pytest.mark.parametrize("version", VERSIONS)
Opener = Callable[..., TensorRTRuntime]
TWO_INPUTS = {
    "inputs": {"left": ["FLOAT", [-1]], "right": ["FLOAT", [-1]]},
    "outputs": {"doubled": ["FLOAT", [-1]], "total": ["FLOAT", [-1]]},
    "profile": {name: [[1], [2], [8]] for name in ("left", "right")},
}
"""doubled = 2 (left + right) + 1"""


@pytest.fixture
def cudart() -> Any:
    return fakes.Cudart(devices=2)


@pytest.fixture
def open_engine(cudart: Any, tmp_path: Path) -> Iterator[Opener]:
    """`open_engine(version, device=, use_graphs=, library=, **plan)`: a runtime of the stand-in's engine."""
    opened: list[TensorRTRuntime] = []

    def make(
        version: str = "10.3.0", *, device: str = "cuda:0", use_graphs: bool = False, library: Any = None, **plan: Any
    ) -> TensorRTRuntime:
        path = tmp_path / "model.engine"
        path.write_bytes(fakes.engine_bytes(version, **plan))
        library = library or cudart
        module = fakes.make_tensorrt(library, version)
        cuda = Cuda(library, "libcudart.so.12")
        opened.append(TensorRTRuntime(path, device=device, use_graphs=use_graphs, module=module, cuda=cuda))
        return opened[-1]

    yield make
    for runtime in opened:
        runtime.close()
    assert cudart.live() == {}  # whatever a test did


def picture(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, 4), dtype=np.uint8)


def by_hand(image: np.ndarray) -> dict[str, list[Any]]:
    doubled = [[2.0 * int(value) + 1 for value in row] for row in image]
    return {"doubled": doubled, "total": [sum(row) for row in doubled]}


def run(runtime: TensorRTRuntime, image: np.ndarray) -> dict[str, list[Any]]:
    return {name: values.tolist() for name, values in runtime.run({"image": image}).items()}


@each_version
@pytest.mark.parametrize("use_graphs", [False, True], ids=["plain", "graphs"])
def test_every_version_gives_the_numbers_for_sizes_that_come_and_go(
    open_engine: Opener, version: str, use_graphs: bool
) -> None:
    runtime = open_engine(version, use_graphs=use_graphs)
    for seed, rows in enumerate([1, 1, 1, 1, 1, 1, 8, 2, 2, 2, 2, 2, 2, 1, 5]):
        image = picture(seed, rows)
        assert run(runtime, image) == by_hand(image)


@each_version
def test_tensor_specs_name_shapes_and_types(open_engine: Opener, version: str) -> None:
    runtime = open_engine(version)
    (image,) = runtime.inputs
    assert (image.name, image.shape, image.dtype) == ("image", (None, 4), np.dtype(np.uint8))
    assert [(spec.name, spec.shape, spec.dtype) for spec in runtime.outputs] == [
        ("doubled", (None, 4), np.dtype(np.float32)),
        ("total", (None,), np.dtype(np.float32)),
    ]


def test_outputs_belong_to_the_caller_and_inputs_may_be_strided_and_read_only(open_engine: Opener) -> None:
    runtime = open_engine()
    image = picture(1, 8)
    image.flags.writeable = False
    part = image[::2, ::-1]
    first = runtime.run({"image": part})
    kept = {name: values.tolist() for name, values in first.items()}
    assert kept == by_hand(part)
    first["doubled"][:] = -1
    assert run(runtime, picture(2, 4)) == by_hand(picture(2, 4))
    assert first["total"].tolist() == kept["total"]


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, r"expected the inputs \['image'\], got \[\]"),
        ({"image": np.zeros((1, 4), np.float32)}, "expected uint8, got float32"),
        ({"image": np.zeros((1, 5), np.uint8)}, r"expected shape \[\?, 4\], got \[1, 5\]"),
        (
            {"image": np.zeros((0, 4), np.uint8)},
            r"expected a shape from \[1, 4\] to \[8, 4\], for which .*model\.engine was prepared, got \[0, 4\]",
        ),
    ],
    ids=["missing", "type", "fixed size", "below the profile"],
)
def test_feeds_that_do_not_fit_are_refused_and_harm_nothing(open_engine: Opener, feeds: Any, message: str) -> None:
    runtime = open_engine()
    with pytest.raises(ValueError, match=message):
        runtime.run(feeds)
    assert run(runtime, picture(1, 1)) == by_hand(picture(1, 1))


def test_sizes_outside_of_the_profile_are_refused_with_its_limits(open_engine: Opener) -> None:
    wide = {
        "inputs": {"image": ["UINT8", [-1, -1]]},
        "outputs": {"doubled": ["FLOAT", [-1, 6]], "total": ["FLOAT", [-1]]},
        "profile": {"image": [[1, 4], [2, 6], [8, 6]]},
    }
    runtime = open_engine(**wide)
    for columns in (3, 7):
        with pytest.raises(ValueError, match=rf"from \[1, 4\] to \[8, 6\], .* got \[2, {columns}\]"):
            runtime.run({"image": np.zeros((2, columns), np.uint8)})
    assert run(runtime, np.full((2, 6), 3, np.uint8)) == {"doubled": [[7.0] * 6] * 2, "total": [42.0] * 2}


@pytest.mark.parametrize("rows", [8, 9, 16, 21])
def test_a_batch_above_the_profile_is_run_in_parts(open_engine: Opener, cudart: Any, rows: int) -> None:
    image = picture(rows, rows)
    assert run(open_engine(), image) == by_hand(image)
    assert cudart.calls["cudaEventSynchronize"] == -(-rows // 8)


def test_two_inputs_are_not_run_in_parts(open_engine: Opener) -> None:
    runtime = open_engine(**TWO_INPUTS)
    nine = np.ones(9, np.float32)
    with pytest.raises(ValueError, match=r"'left': expected a shape from \[1\] to \[8\]"):
        runtime.run({"left": nine, "right": nine})


@each_version
def test_eight_threads_get_their_own_results_from_four_contexts(open_engine: Opener, cudart: Any, version: str) -> None:
    runtime = open_engine(version, sharing=True, use_graphs=version != "8.6.1")
    cudart.delay = 0.001

    def work(thread: int) -> bool:
        images = [picture(100 * thread + turn, 1 + (thread + turn // 6) % 8) for turn in range(30)]
        return all(run(runtime, image) == by_hand(image) for image in images)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert cudart.most_contexts == 4
    assert len(cudart.streams) == len(cudart.events) == 4


def test_one_caller_needs_one_context(open_engine: Opener, cudart: Any) -> None:
    runtime = open_engine()
    assert cudart.most_contexts == 0
    for seed in range(3):
        run(runtime, picture(seed, 1 + seed))
    assert cudart.most_contexts == 1


@pytest.mark.parametrize(
    ("plan", "contexts"),
    [({"version": "8.6.1"}, 1), ({"version": "8.6.1", "sharing": True}, 4), ({"contexts": 2}, 2)],
    ids=["a profile of its own", "a shared profile", "no memory"],
)
def test_callers_wait_where_no_further_context_can_be_had(
    open_engine: Opener, cudart: Any, plan: dict[str, Any], contexts: int
) -> None:
    runtime = open_engine(**plan)
    cudart.delay = 0.002
    with ThreadPoolExecutor(8) as pool:
        images = [picture(seed, 1 + seed % 3) for seed in range(40)]
        assert list(pool.map(lambda image: run(runtime, image), images)) == [by_hand(image) for image in images]
    assert len(cudart.contexts) == len(cudart.streams) == contexts


def test_what_tensorrt_says_arrives_in_the_error_and_not_on_the_screen(
    open_engine: Opener, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeFault, match=r"model\.engine on cuda:0: .*no memory for a context"):
        open_engine(contexts=0).run({"image": picture(1, 1)})
    assert capfd.readouterr() == ("", "")


def test_steady_shapes_run_as_a_graph_and_others_do_not(open_engine: Opener, cudart: Any) -> None:
    runtime = open_engine(use_graphs=True)
    for seed in range(10):
        run(runtime, picture(seed, 2))
    assert (cudart.calls["cudaGraphInstantiateWithFlags"], cudart.calls["cudaGraphLaunch"]) == (1, 7)
    for seed in range(10):
        run(runtime, picture(seed, 1 + seed % 2))
    assert cudart.calls["cudaGraphLaunch"] == 7
    assert not cudart.graphs
    assert not cudart.executables


def test_without_being_asked_for_graphs_are_not_used(open_engine: Opener, cudart: Any) -> None:
    runtime = open_engine()
    for seed in range(10):
        run(runtime, picture(seed, 2))
    assert cudart.calls["cudaStreamBeginCapture"] == 0


@pytest.mark.parametrize(
    ("plan", "faults", "without"),
    [
        ({"capturable": False}, {}, ()),
        ({}, {"cudaStreamBeginCapture": 801}, ()),
        ({}, {"cudaGraphInstantiateWithFlags": 801}, ()),
        ({}, {}, ("cudaGraphInstantiateWithFlags",)),
    ],
    ids=["engine", "begin", "instantiate", "CUDA before 11.4"],
)
def test_where_a_graph_cannot_be_made_it_is_said_once_and_the_numbers_are_right(
    open_engine: Opener,
    caplog: pytest.LogCaptureFixture,
    plan: dict[str, Any],
    faults: dict[str, int],
    without: tuple[str, ...],
) -> None:
    library = fakes.Cudart(without=without)
    library.faults = faults
    runtime = open_engine(use_graphs=True, library=library, **plan)
    with caplog.at_level(logging.WARNING):
        for seed in range(10):
            assert run(runtime, picture(seed, 2)) == by_hand(picture(seed, 2))
    assert [record.message for record in caplog.records if "without CUDA graphs" in record.message] == caplog.messages
    assert len(caplog.messages) == 1
    runtime.close()
    assert library.live() == {}


@pytest.mark.parametrize("use_graphs", [False, True], ids=["plain", "graphs"])
def test_a_failure_anywhere_gives_everything_back_and_the_next_run_works(
    open_engine: Opener, cudart: Any, use_graphs: bool
) -> None:
    sizes = [1, 1, 1, 1, 1, 3]
    failed = 0
    for calls in range(200):
        runtime = open_engine(use_graphs=use_graphs)
        cudart.countdown = calls
        for seed, rows in enumerate(sizes):
            image = picture(seed, rows)
            try:
                assert run(runtime, image) == by_hand(image)
            except RuntimeFault as error:
                assert "out of memory" in str(error)  # noqa: PT017
                failed += 1
                assert run(runtime, image) == by_hand(image)
        tripped, cudart.countdown = cudart.countdown is None, None
        runtime.close()
        assert cudart.live() == {}, f"after a failure of call {calls}"
        if not tripped:
            break
    assert not tripped
    assert failed > 20


@pytest.mark.parametrize("closed_at", [None, 20], ids=["to the end", "closed on the way"])
def test_failures_under_eight_threads_leave_nothing_behind_and_no_wrong_number(
    open_engine: Opener, cudart: Any, closed_at: int | None
) -> None:
    runtime = open_engine(use_graphs=True, contexts=1000)
    cudart.delay = 0.0003

    def work(thread: int) -> int:
        draw = np.random.default_rng(thread)
        right = 0
        for turn in range(40):
            if draw.random() < 0.05:
                cudart.countdown = int(draw.integers(12))
            if (thread, turn) == (0, closed_at):
                runtime.close()
            image = picture(100 * thread + turn, int(draw.choice([1, 1, 1, 3, 9])))
            try:
                assert run(runtime, image) == by_hand(image)
                right += 1
            except RuntimeFault as error:
                assert re.search("out of memory|closed", str(error))  # noqa: PT017
        return right

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(8))) >= 10
    cudart.countdown = None
    runtime.close()
    assert cudart.live() == {}


def test_closing_frees_all_and_running_then_raises(open_engine: Opener, cudart: Any) -> None:
    runtime = open_engine(use_graphs=True)
    for seed in range(6):
        run(runtime, picture(seed, 2))
    assert {"memory", "streams", "events", "contexts", "executables"} == set(cudart.live())
    runtime.close()
    runtime.close()
    assert cudart.live() == {}
    for _ in range(6):
        with pytest.raises(RuntimeFault, match=r"model\.engine.* closed"):
            run(runtime, picture(1, 1))


def test_a_runtime_that_nobody_holds_any_more_frees_all(cudart: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    path.write_bytes(fakes.engine_bytes())
    module = fakes.make_tensorrt(cudart)
    runtime = TensorRTRuntime(path, module=module, cuda=Cuda(cudart, "libcudart.so"))
    run(runtime, picture(1, 1))
    assert cudart.live()
    del runtime
    gc.collect()
    assert cudart.live() == {}
    assert [engine() for engine in module.engines] == [None]


def test_closing_while_threads_run_gives_results_or_runtime_faults(open_engine: Opener, cudart: Any) -> None:
    runtime = open_engine()
    cudart.delay = 0.001
    image = picture(1, 2)
    expected = by_hand(image)

    def work(index: int) -> int:
        done = 0
        try:
            while True:
                assert run(runtime, image) == expected
                done += 1
                if index == 0 and done == 5:
                    runtime.close()
        except RuntimeFault:
            return done

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(8))) >= 5
    assert cudart.live() == {}


def test_the_device_is_the_callers_again_after_every_call(open_engine: Opener, cudart: Any) -> None:
    runtime = open_engine(device="cuda:1")
    assert cudart.current() == 0
    run(runtime, picture(1, 1))
    assert cudart.current() == 0
    assert cudart.calls["cudaSetDevice"] == 4  # there and back, for loading and for running
    seen = []
    thread = threading.Thread(target=lambda: seen.append((run(runtime, picture(1, 1)), cudart.current())))
    thread.start()
    thread.join()
    assert seen == [(by_hand(picture(1, 1)), 0)]


def test_an_error_that_ends_cuda_says_to_start_again(open_engine: Opener, cudart: Any) -> None:
    runtime = open_engine()
    cudart.faults = {"cudaEventSynchronize": 700}
    with pytest.raises(RuntimeFault, match=r"illegal address \(CUDA error 700\); .*start the program again"):
        run(runtime, picture(1, 1))
    cudart.faults = {}


@pytest.mark.parametrize(
    ("devices", "faults", "device", "message"),
    [
        (2, {}, "cuda:5", r"model\.engine on cuda:5: .*CUDA finds cuda:0, cuda:1 here"),
        (0, {}, "cuda:0", "no NVIDIA GPU is visible"),
        (1, {"cudaGetDeviceCount": 35}, "cuda:0", "install or update the NVIDIA driver"),
    ],
    ids=["number", "none", "driver"],
)
def test_a_device_that_is_not_there_is_refused(
    open_engine: Opener, devices: int, faults: dict[str, int], device: str, message: str
) -> None:
    library = fakes.Cudart(devices=devices)
    library.faults = faults
    with pytest.raises(DeviceUnavailableError, match=message):
        open_engine(device=device, library=library)
    assert library.live() == {}


def test_another_kind_of_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'cuda:N' for TensorRT, got 'cpu'"):
        TensorRTRuntime(tmp_path / "model.engine", device="cpu")
    with pytest.raises(DeviceUnavailableError, match="tensorrt knows the devices cuda"):
        open_runtime(tmp_path / "model.engine", device="cpu")


@pytest.mark.parametrize("content", [b"", b"garbage", b"old", None], ids=["empty", "garbage", "version", "missing"])
def test_an_engine_that_does_not_load_is_an_artifact_error_with_versions(
    cudart: Any, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "model.engine"
    if content is not None:
        path.write_bytes(fakes.engine_bytes("8.6.1") if content == b"old" else content)
    with pytest.raises(ArtifactError, match=r"model\.engine.*posesdk prepare") as caught:
        TensorRTRuntime(path, module=fakes.make_tensorrt(cudart), cuda=Cuda(cudart, "libcudart.so"))
    if content is not None:
        assert "TensorRT 10.3.0" in str(caught.value)
        assert "Fake GPU 0 (compute capability 8.7)" in str(caught.value)
    if content == b"old":
        assert "expecting library version 10.3.0 got 8.6.1" in str(caught.value)


def test_an_engine_for_which_there_is_no_memory_is_not_blamed(
    cudart: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.engine"
    path.write_bytes(fakes.engine_bytes("10.3.0"))
    module = fakes.make_tensorrt(cudart)

    def refuse(runtime: Any, data: bytes) -> None:
        runtime._logger.log(module.ILogger.Severity.ERROR, "Requested amount of GPU memory (64 bytes): out of memory")

    monkeypatch.setattr(module.Runtime, "deserialize_cuda_engine", refuse)
    with pytest.raises(RuntimeFault, match=r"model\.engine.*out of memory; close other programs"):
        TensorRTRuntime(path, module=module, cuda=Cuda(cudart, "libcudart.so"))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"outputs": {"doubled": ["BF16", [-1, 4]], "total": ["FLOAT", [-1]]}}, "'doubled' is of type BF16"),
        ({"location": "HOST"}, "'image' is a shape"),
    ],
)
def test_tensors_that_numpy_cannot_hold_are_an_artifact_error(
    open_engine: Opener, plan: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        open_engine(**plan)


def test_sizes_that_the_engine_cannot_compute_are_a_runtime_fault_and_harm_nothing(open_engine: Opener) -> None:
    runtime = open_engine(**TWO_INPUTS)
    two, three = np.ones(2, np.float32), np.ones(3, np.float32)
    for _ in range(6):  # more often than the pool has lanes
        with pytest.raises(RuntimeFault, match=r"model\.engine on cuda:0: .*do not fit"):
            runtime.run({"left": two, "right": three})
        assert runtime.run({"right": two, "left": two})["doubled"].tolist() == [5, 5]  # 2 (1 + 1) + 1


def test_outputs_whose_size_depends_on_values_are_refused(open_engine: Opener) -> None:
    with pytest.raises(RuntimeFault, match=r"'doubled'.*depends on values"):
        open_engine(open_outputs=True).run({"image": picture(1, 1)})


def test_a_bundle_through_it_gives_the_poses_of_onnxruntime(cudart: Any, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    bundle = open_bundle(default_bundle_path())
    (candidate,) = select_variant(bundle.manifest, "onnxruntime", "cpu", "fp32")
    reference = open_pipeline(bundle, candidate, threads=1)
    assert reference.adapt is not None
    golden = bundle.golden()
    assert golden is not None
    image = cv2.imdecode(np.frombuffer(golden.image, np.uint8), cv2.IMREAD_COLOR)
    images = [image, image[:, ::-1], image, np.ascontiguousarray(image.transpose(1, 0, 2)), image, image]
    variant = candidate.variant
    assert variant.adapt is not None
    rows = [size or 0 for size in reference.adapt.inputs[0].shape[1:]]
    profiles = {
        variant.trunk: {"image": [[1, 32, 32, 3], [1, 256, 320, 3], [1, 320, 320, 3]]},
        variant.adapt: {"context": [[1, *rows], [1, *rows], [2, *rows]]},  # three persons run in parts
    }
    module, cuda = fakes.make_tensorrt(cudart), Cuda(cudart, "libcudart.so")
    opened = []
    for graph, profile in profiles.items():
        path = tmp_path / f"{len(opened)}.engine"
        path.write_bytes(fakes.onnx_engine_bytes(bundle.local_path(graph), profile))
        opened.append(TensorRTRuntime(path, module=module, cuda=cuda, use_graphs=True))
    pipeline = Pipeline(reference.spec, *opened)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(pipeline.run, images))
    for estimate, image in zip(found, images, strict=True):
        wanted = reference.run(image)
        assert len(wanted.scores) >= 1
        np.testing.assert_array_equal(estimate.keypoints, wanted.keypoints)
        np.testing.assert_array_equal(estimate.keypoint_scores, wanted.keypoint_scores)
    assert cudart.calls["cudaEventSynchronize"] > 2 * len(images)  # persons were run in parts
    pipeline.close()
    reference.close()
    assert cudart.live() == {}


def test_a_module_that_is_missing_or_too_old_is_told_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # makes `import tensorrt` raise ImportError
    monkeypatch.setattr(registry, "JETSON_SIGNS", (tmp_path / "none",))
    monkeypatch.setattr(tensorrt_module, "_system_folders", list)
    for call in (load_tensorrt, lambda: runtime_devices("tensorrt"), lambda: open_runtime("a.engine", device="0")):
        with pytest.raises(MissingDependencyError, match="pip install tensorrt"):
            call()
    monkeypatch.setattr(registry, "JETSON_SIGNS", (tmp_path,))
    with pytest.raises(MissingDependencyError, match=r"python3-libnvinfer.*--system-site-packages"):
        load_tensorrt()
    old = ModuleType("tensorrt")
    old.__version__ = "8.5.2.2"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(MissingDependencyError, match=r"8\.5\.2\.2 is too old: 8\.6 or newer.*JetPack 6"):
        load_tensorrt()


@each_version
def test_the_stand_in_has_the_signatures_that_were_read_from_the_bindings(version: str) -> None:
    module = fakes.make_tensorrt(fakes.Cudart(), version)
    for member, signatures in fakes.API.items():
        kind, name = member.split(".")
        wanted = signatures[VERSIONS.index(version)]
        there = getattr(getattr(module, kind), name, "made by the constructor")
        if wanted is None:
            assert isinstance(there, (property, str)), member
        else:
            assert ", ".join(list(inspect.signature(there).parameters)[1:]) == wanted, member


def test_the_runtime_uses_no_other_member_of_tensorrt() -> None:
    known = {member.split(".")[1] for member in fakes.API}
    enums = {"Runtime", "ILogger", "Dims", "TensorIOMode", "TensorLocation", "__version__"}
    used: dict[str, set[str]] = {"module": set(), "engine": set(), "context": set()}
    for source in (tensorrt_module, tensorrt_lane):
        for node in ast.walk(ast.parse(inspect.getsource(source))):
            if isinstance(node, ast.Attribute):
                owner = ast.unparse(node.value).removeprefix("self.").lstrip("_")
                if owner in used:
                    used[owner].add(node.attr)
    assert used["module"] == enums
    assert used["engine"] == {name for name in known if f"ICudaEngine.{name}" in fakes.API} - (
        used["context"] - {"get_tensor_shape"}
    )
    assert used["context"] == {name for name in known if f"IExecutionContext.{name}" in fakes.API}


def real(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed")


def driver() -> bool:
    try:
        return load_cuda().device_count() > 0
    except PoseSDKError:
        return False


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_nvidias_own_binding_takes_what_the_stand_in_takes(name: str) -> None:
    module = real(name)
    column = 0 if module.__version__.startswith("8.") else 1 if module.__version__.startswith("10.") else 2
    for member, signatures in fakes.API.items():
        kind, attribute = member.split(".")
        there = getattr(getattr(module, kind), attribute)
        if signatures[column] is None:
            assert isinstance(there, property), member
            continue
        overloads = [
            re.findall(r"[(,] ?(\w+): ", line)[1:]
            for line in there.__doc__.splitlines()
            if re.search(rf"{attribute}\(self: ", line)
        ]
        assert signatures[column].split(", ") in overloads or (signatures[column] == "" and [] in overloads), member
    assert {"INPUT", "OUTPUT"} <= set(module.TensorIOMode.__members__)
    assert "DEVICE" in module.TensorLocation.__members__
    assert {"FLOAT", "HALF", "UINT8", "INT8", "INT32", "BOOL"} <= set(module.DataType.__members__)
    assert set(fakes.Severity.__members__) <= set(module.ILogger.Severity.__members__)
    assert tuple(module.Dims([2, 3])) == (2, 3)


@pytest.mark.skipif(driver(), reason="there is a GPU here")
def test_nvidias_own_binding_without_a_gpu_says_that_there_is_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = real("tensorrt_rtx")
    path = build(module, tmp_path)
    with pytest.raises((DeviceUnavailableError, MissingDependencyError), match=r"doubled\.engine on cuda:0: "):
        TensorRTRuntime(path, module=module)
    # With a libcudart that claims a GPU, TensorRT itself has to say what is wrong.
    with pytest.raises(ArtifactError, match=r"doubled\.engine on Fake GPU 0.*CUDA driver version.*posesdk prepare"):
        TensorRTRuntime(path, module=module, cuda=Cuda(fakes.Cudart(), "libcudart.so"))
    assert capfd.readouterr() == ("", "")


def build(module: Any, folder: Path) -> Path:
    """The engine of the stand-in, built by a real TensorRT: image UINT8 [1..8, 4] -> 2 image + 1, and its row sums."""
    onnx = pytest.importorskip("onnx", reason="the engine is made from an ONNX graph")
    node, info, kinds = onnx.helper.make_node, onnx.helper.make_tensor_value_info, onnx.TensorProto
    constants = {"two": np.array([2], np.float32), "one": np.array([1], np.float32), "axes": np.array([1], np.int64)}
    graph = onnx.helper.make_graph(
        [
            node("Cast", ["image"], ["float"], to=kinds.FLOAT),
            node("Mul", ["float", "two"], ["twice"]),
            node("Add", ["twice", "one"], ["doubled"]),
            node("ReduceSum", ["doubled", "axes"], ["total"], keepdims=0),
        ],
        "doubled",
        [info("image", kinds.UINT8, ["N", 4])],
        [info("doubled", kinds.FLOAT, ["N", 4]), info("total", kinds.FLOAT, ["N"])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    log = tensorrt_module.tensorrt_log(module)
    builder = module.Builder(log)
    explicit = module.__version__.startswith("8.")
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if explicit else 0)
    parser = module.OnnxParser(network, log)
    assert parser.parse(model.SerializeToString())
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("image", (1, 4), (2, 4), (8, 4))
    config.add_optimization_profile(profile)
    path = folder / "doubled.engine"
    path.write_bytes(bytes(builder.build_serialized_network(network, config)))
    return path


@pytest.mark.gpu
@pytest.mark.skipif(not driver(), reason="there is no NVIDIA GPU here")
@pytest.mark.parametrize("use_graphs", [False, True], ids=["plain", "graphs"])
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_a_real_engine_on_a_gpu_gives_the_numbers_from_eight_threads(
    tmp_path: Path, name: str, use_graphs: bool, caplog: pytest.LogCaptureFixture
) -> None:
    module = real(name)
    runtime = TensorRTRuntime(build(module, tmp_path), module=module, use_graphs=use_graphs)

    def work(thread: int) -> bool:
        images = [picture(100 * thread + turn, 1 + (thread + turn // 8) % 8) for turn in range(64)]
        return all(run(runtime, image) == by_hand(image) for image in images)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    runtime.close()
    if name == "tensorrt":  # an engine of tensorrt-rtx can only be captured if it was built for it
        assert not [message for message in caplog.messages if "without CUDA graphs" in message]
