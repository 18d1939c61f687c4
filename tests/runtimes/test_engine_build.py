"""The builder process with NVIDIA's own builder (TensorRT-RTX works without a GPU), and each TensorRT's typing.

What versions 8.6, 10 and 11 of TensorRT are asked for is checked with stand-ins that have the flags of that version.
"""

import enum
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from posesdk_runtimes.engines.build import Phases, configure
from posesdk_runtimes.engines.engine import EngineOptions, ensure_engine, open_as_engine
from posesdk_runtimes.engines.job import BuildFault, Job, Messages
from posesdk_runtimes.engines.key import Machine
from posesdk_runtimes.engines.network import Vendor, make_profile, parse_network
from posesdk_runtimes.engines.process import BuildProgress
from posesdk_runtimes.engines.recipe import GraphRecipe, ShapeRange
from posesdk_runtimes.errors import ArtifactError, EngineBuildError, MissingDependencyError
from posesdk_runtimes.registry import open_runtime

IMAGE = GraphRecipe({"image": ShapeRange((1, 8, 8, 3), (1, 16, 16, 3), (2, 32, 32, 3))}, workspace_mib=64)
WITHOUT_GPU = Machine(tensorrt="RTX", gpu="none")


@pytest.fixture
def rtx() -> str:
    pytest.importorskip("tensorrt_rtx", reason="engines are built without a GPU by TensorRT-RTX only")
    return "tensorrt_rtx"


def options(folder: Path, module: str, **changes: Any) -> EngineOptions:
    known = {"cache": folder / "engines", "machine": WITHOUT_GPU, "free": (8000, 8000), "module": module, "timeout": 90}
    return EngineOptions(**{**known, **changes})


def test_a_real_engine_is_built_with_progress(tmp_path: Path, graph: Path, rtx: str) -> None:
    heard: list[BuildProgress] = []
    engine = ensure_engine(graph, options=options(tmp_path, rtx, recipe=IMAGE, on_progress=heard.append))
    assert engine.size == engine.path.stat().st_size > 4000
    parts = [progress.part for progress in heard if progress.part is not None]
    assert len(parts) > 10
    assert parts == sorted(parts)
    assert 0 <= parts[0] < 0.2
    assert 0.5 < parts[-2] <= 1
    assert (heard[-1].phase, heard[-1].part) == ("built", 1)
    assert {"reading the graph", "building"} <= {progress.phase for progress in heard}


def test_a_graph_without_a_recipe_is_built_for_usual_shapes(tmp_path: Path, graph: Path, rtx: str) -> None:
    assert ensure_engine(graph, options=options(tmp_path, rtx)).size > 4000


@pytest.mark.parametrize("name", ["trunk", "adapt"])
def test_the_portable_graphs_of_a_model_become_engines(
    tmp_path: Path, converted_bundle: Path, rtx: str, name: str
) -> None:
    from posesdk.bundle import open_bundle

    path = open_bundle(converted_bundle).local_path(f"portable/{name}.onnx")
    assert ensure_engine(path, options=options(tmp_path, rtx)).size > 4000


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """float32 [N, 4] -> Cast to float16 -> times 2 -> Cast back."""
    return _scale_graph(tmp_path_factory.mktemp("half") / "half.onnx", half=True)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """float32 [N, 4] -> times 2."""
    return _scale_graph(tmp_path_factory.mktemp("single") / "single.onnx", half=False)


def _scale_graph(path: Path, *, half: bool, operator: str = "Mul") -> Path:
    onnx = pytest.importorskip("onnx", reason="the test graphs are made with onnx")
    node, info, kinds = onnx.helper.make_node, onnx.helper.make_tensor_value_info, onnx.TensorProto
    nodes = [node(operator, ["x", "two"], ["y"])]
    if half:
        nodes = [
            node("Cast", ["x"], ["h"], to=kinds.FLOAT16),
            node(operator, ["h", "two"], ["twice"]),
            node("Cast", ["twice"], ["y"], to=kinds.FLOAT),
        ]
    two = onnx.numpy_helper.from_array(np.array([2], np.float16 if half else np.float32), "two")
    ports = (info(name, kinds.FLOAT, ["N", 4]) for name in "xy")
    body = onnx.helper.make_graph(nodes, "scale", *([port] for port in ports), [two])
    onnx.save(onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_a_graph_in_float16_is_built_as_it_is(tmp_path: Path, half: Path, rtx: str) -> None:
    assert ensure_engine(half, precision="f16", options=options(tmp_path, rtx)).size > 1000
    assert ensure_engine(half, precision="f32", options=options(tmp_path, rtx)).size > 1000


def _broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no graph at all")
    return path


REFUSALS = {
    "float16 of a float32 graph": ("single", {"precision": "f16"}, {}, "precision", "float32 throughout"),
    "an operator unknown to the parser": ("unknown", {}, {}, "parse", "cannot read the graph.*NoSuchThing"),
    "no ONNX file": ("broken", {}, {}, "parse", "cannot read the graph"),
    "an input that the recipe leaves out": (
        "single",
        {},
        {"recipe": GraphRecipe({"z": ShapeRange((1,), (1,), (1,))})},
        "shapes",
        "no shapes for the input 'x'",
    ),
    "shapes of another graph": (
        "single",
        {},
        {"recipe": GraphRecipe({"x": ShapeRange((1, 5), (1, 5), (2, 5))})},
        "shapes",
        r"do not fit the input 'x' \[-1, 4\]",
    ),
}


@pytest.mark.parametrize(("name", "asked", "changes", "reason", "message"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_built_is_refused_with_the_reason(
    tmp_path: Path,
    single: Path,
    rtx: str,
    name: str,
    asked: dict[str, Any],
    changes: dict[str, Any],
    reason: str,
    message: str,
) -> None:
    path = single
    if name == "broken":
        path = _broken(tmp_path)
    elif name == "unknown":
        path = _scale_graph(tmp_path / "unknown.onnx", half=False, operator="NoSuchThing")
    with pytest.raises(EngineBuildError, match=message) as caught:
        ensure_engine(path, options=options(tmp_path, rtx, **changes), **asked)
    assert caught.value.reason == reason
    assert [file.name for file in (tmp_path / "engines").iterdir()] == ["build.lock"]


def test_a_library_that_is_not_there_is_named(tmp_path: Path, single: Path) -> None:
    with pytest.raises(MissingDependencyError, match="no_such_trt"):
        ensure_engine(single, options=options(tmp_path, "no_such_trt"))


def test_the_process_keeps_standard_output_for_its_protocol(tmp_path: Path, single: Path, rtx: str) -> None:
    job = Job(str(single), str(tmp_path / "e"), "f32", None, 64, rtx)
    program = (
        f"import sys; sys.path[:] = {[entry for entry in sys.path if entry]!r}\n"
        "from posesdk_runtimes.engines.build import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(job.to_dict()), capture_output=True, text=True, check=True
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {event["event"] for event in events} <= {"progress", "alive", "done"}
    assert events[-1]["event"] == "done"
    assert events[-1]["size"] == (tmp_path / "e").stat().st_size


def test_a_builder_that_nobody_listens_to_any_more_ends() -> None:
    program = (
        f"import sys, time; sys.path[:] = {[entry for entry in sys.path if entry]!r}\n"
        "from posesdk_runtimes.engines import build as engine_build\n"
        "engine_build.BEAT = 0.05\n"
        "with engine_build.Channel().beating(): time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"event": "alive"}
    process.stdout.close()
    assert process.wait(10) == 1


def test_a_job_survives_its_way_through_json() -> None:
    for recipe in (None, IMAGE):
        job = Job("a.onnx", "b", "f16", recipe, 5, "m")
        assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job


def test_nested_phases_become_one_part_that_never_goes_back() -> None:
    phases = Phases()
    phases.start("all", None, 4)
    phases.step("all", 0)
    assert phases.part == 0.25
    phases.start("inner", "all", 2)
    phases.step("inner", 0)
    assert phases.part == 0.25 + 0.5 / 4
    phases.finish("inner")
    assert phases.part == 0.25 + 0.5 / 4
    phases.step("all", 1)
    phases.start("nothing", "all", 0)
    assert phases.part == 0.5
    phases.finish("all")
    phases.start("again", None, 10)
    assert phases.part == 0.5


class _Layer:
    """A layer of a stand-in network: its kind and what it gives."""

    def __init__(self, trt: Any, kind: str, gives: str) -> None:
        self.type, self.num_outputs, self._gives = getattr(trt.LayerType, kind), 1, getattr(trt.DataType, gives)
        self.precision: Any = None

    def get_output_type(self, index: int) -> Any:
        return self._gives


class _Network:
    num_inputs = 0

    def __init__(self, layers: list[_Layer], flags: int) -> None:
        self.layers, self.flags, self.num_layers = layers, flags, len(layers)

    def get_layer(self, index: int) -> _Layer:
        return self.layers[index]


class _Parser:
    num_errors = 0

    def __init__(self, network: _Network, logger: object) -> None:
        self.network = network

    def parse_from_file(self, path: str) -> bool:
        return True


def stand_in(version: str, layers: list[tuple[str, str]], **abilities: bool) -> Vendor:
    """TensorRT as far as the choice of the typing sees it."""
    major = int(version.partition(".")[0])
    creation = {8: ["EXPLICIT_BATCH"], 10: ["EXPLICIT_BATCH", "STRONGLY_TYPED"], 11: ["STRONGLY_TYPED"]}[major]
    flags = ["TF32"] if major == 11 else ["TF32", "FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"]
    trt = types.SimpleNamespace(
        __name__="tensorrt",
        __version__=version,
        NetworkDefinitionCreationFlag=enum.IntEnum("Creation", creation, start=0),
        BuilderFlag=enum.IntEnum("Flag", flags, start=0),
        LayerType=enum.Enum("LayerType", ["CONVOLUTION", "CONSTANT", "QUANTIZE"]),
        DataType=enum.Enum("DataType", ["FLOAT", "HALF", "INT8"]),
        OnnxParser=_Parser,
    )
    builder = types.SimpleNamespace(
        create_network=lambda flags: _Network([_Layer(trt, *layer) for layer in layers], flags), **abilities
    )
    return Vendor(trt, None, builder, Messages())


FLOAT = [("CONVOLUTION", "FLOAT")]
MIXED = [("CONSTANT", "FLOAT"), ("CONVOLUTION", "HALF"), ("CONVOLUTION", "FLOAT")]
QUANTIZED = [("QUANTIZE", "INT8"), ("CONVOLUTION", "FLOAT")]
WEAK = GraphRecipe(strongly_typed=False)
STRONG, OBEY = "STRONGLY_TYPED", "OBEY_PRECISION_CONSTRAINTS"
TYPINGS: dict[str, tuple[str, list[tuple[str, str]], str, GraphRecipe | None, str, list[str]]] = {
    "8.6 float32": ("8.6.2", FLOAT, "f32", None, "EXPLICIT_BATCH", []),
    "8.6 float16 asked": ("8.6.2", FLOAT, "f16", None, "EXPLICIT_BATCH", ["FP16"]),
    "8.6 float16 in the graph": ("8.6.2", MIXED, "f32", None, "EXPLICIT_BATCH", ["FP16", OBEY]),
    "8.6 int8 in the graph": ("8.6.2", QUANTIZED, "f32", None, "EXPLICIT_BATCH", ["INT8"]),
    "10 float32": ("10.3.0", FLOAT, "f32", None, STRONG, []),
    "10 float16 asked of a float32 graph": ("10.3.0", FLOAT, "f16", None, "", ["FP16"]),
    "10 float16 in the graph": ("10.3.0", MIXED, "f16", None, STRONG, []),
    "10 int8 in the graph": ("10.3.0", QUANTIZED, "f32", None, STRONG, []),
    "10 weak by the recipe": ("10.3.0", QUANTIZED, "f16", WEAK, "", ["FP16", "INT8"]),
    "11 int8 in the graph": ("11.4.0", QUANTIZED, "f32", None, STRONG, []),
    "11 knows no weak typing": ("11.4.0", MIXED, "f32", WEAK, STRONG, []),
}


@pytest.mark.parametrize(("version", "layers", "precision", "recipe", "typing", "flags"), TYPINGS.values(), ids=TYPINGS)
def test_each_version_is_asked_in_its_own_way(
    version: str,
    layers: list[tuple[str, str]],
    precision: str,
    recipe: GraphRecipe | None,
    typing: str,
    flags: list[str],
) -> None:
    vendor = stand_in(version, layers)
    network = parse_network(vendor, Job("a.onnx", "b", precision, recipe, 64))
    expected = 1 << getattr(vendor.trt.NetworkDefinitionCreationFlag, typing) if typing else 0
    assert network.definition.flags == expected
    assert [flag.name for flag in network.flags] == flags


def test_float32_layers_beside_float16_ones_keep_their_precision_in_8_6() -> None:
    vendor = stand_in("8.6.2", MIXED)
    network = parse_network(vendor, Job("a.onnx", "b", "f32", None, 64))
    assert [layer.precision for layer in network.definition.layers] == [None, None, vendor.trt.DataType.FLOAT]


@pytest.mark.parametrize(
    ("layers", "abilities", "message"),
    [(MIXED, {"platform_has_fast_fp16": False}, "fp16"), (QUANTIZED, {"platform_has_fast_int8": False}, "int8")],
)
def test_a_gpu_that_lacks_the_precision_is_named(
    layers: list[tuple[str, str]], abilities: dict[str, bool], message: str
) -> None:
    with pytest.raises(BuildFault, match=f"does not compute in {message}") as caught:
        parse_network(stand_in("8.6.2", layers, **abilities), Job("a.onnx", "b", "f32", None, 64))
    assert caught.value.reason == "precision"


def test_float16_of_a_float32_graph_is_refused_by_11() -> None:
    with pytest.raises(BuildFault, match=r"tensorrt 11\.4\.0 computes in the types of the graph"):
        parse_network(stand_in("11.4.0", FLOAT), Job("a.onnx", "b", "f16", None, 64))


@pytest.mark.parametrize(("version", "shared"), [("8.6.2", ["PROFILE_SHARING_0806"]), ("10.3.0", []), ("11.4.0", [])])
def test_tensor_float_32_is_off_and_profiles_are_shared(version: str, shared: list[str]) -> None:
    vendor, set_flags, cleared, previews = stand_in(version, MIXED), [], [], []
    config = types.SimpleNamespace(
        set_memory_pool_limit=lambda pool, size: None,
        set_flag=lambda flag: set_flags.append(flag.name),
        clear_flag=lambda flag: cleared.append(flag.name),
        set_preview_feature=lambda feature, on: previews.append(feature),
    )
    vendor.builder.create_builder_config = lambda: config
    vendor.trt.MemoryPoolType = types.SimpleNamespace(WORKSPACE="workspace")
    vendor.trt.PreviewFeature = types.SimpleNamespace(PROFILE_SHARING_0806="PROFILE_SHARING_0806")
    job = Job("a.onnx", "b", "f32", None, 64)
    assert configure(vendor, job, parse_network(vendor, job)) is config
    assert (cleared, previews) == (["TF32"], shared)
    assert set_flags == (["FP16", OBEY] if shared else [])


def test_fixed_shapes_need_no_profile() -> None:
    assert make_profile(stand_in("10.3.0", FLOAT), _Network([], 0), IMAGE) is None


def test_lack_of_memory_is_told_by_the_words_of_the_library() -> None:
    for text in (
        "[E] Error Code 2: OutOfMemory (Requested size was 4294967296 bytes.)",
        "Unexpected exception std::bad_alloc",  # TensorRT-RTX under a limit of its address space
    ):
        assert Messages([text]).fault("build", "no engine").reason == "memory"
    assert Messages(["something else"]).fault("build", "no engine").reason == "build"


class _Runtime:
    """Stands in for TensorRTRuntime: refuses files of the first build."""

    refused: ClassVar[set[bytes]] = set()

    def __init__(self, path: Path, *, device: str, threads: int | None) -> None:
        self.data, self.device = path.read_bytes(), device
        if self.data in self.refused:
            raise ArtifactError(f"TensorRT cannot load {path}")


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineOptions:
    """A builder whose n-th engine holds the number n; engines are opened by the stand-in."""
    script = tmp_path / "builder.py"
    script.write_text(
        "import hashlib, json, os, sys\njob = json.load(sys.stdin)\nopen(sys.argv[1], 'a').write('x')\n"
        "data = str(os.path.getsize(sys.argv[1])).encode()\nopen(job['output'], 'wb').write(data)\n"
        "print(json.dumps({'event': 'done', 'size': len(data), 'sha256': hashlib.sha256(data).hexdigest()}))\n"
    )
    monkeypatch.setattr("posesdk_runtimes.engines.engine.TensorRTRuntime", _Runtime)
    monkeypatch.setattr(_Runtime, "refused", set())
    command = (sys.executable, str(script), str(tmp_path / "count"))
    return options(tmp_path, "tensorrt", command=command)


def test_a_runtime_is_opened_on_the_engine_of_a_graph(
    single: Path, counting: EngineOptions, caplog: pytest.LogCaptureFixture
) -> None:
    runtime: Any = open_runtime(single, runtime="tensorrt", device="cuda:1", engine=counting)
    assert (runtime.data, runtime.device) == (b"1", "cuda:1")
    assert "`posesdk prepare` does it ahead of time" in caplog.text
    caplog.clear()
    assert open_runtime(single, runtime="tensorrt", device="cuda", engine=counting).data == b"1"  # type: ignore[attr-defined]
    assert not caplog.records


def test_a_cached_engine_that_is_refused_is_built_again_once(
    single: Path, counting: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Any = open_as_engine(single, device="cuda:0", options=counting)
    assert opened.data == b"1"
    monkeypatch.setattr(_Runtime, "refused", {b"1"})
    opened = open_as_engine(single, device="cuda:0", options=counting)
    assert opened.data == b"2"
    monkeypatch.setattr(_Runtime, "refused", {b"2", b"3"})
    with pytest.raises(ArtifactError):
        open_as_engine(single, device="cuda:0", options=counting)
