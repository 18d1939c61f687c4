"""`posesdk prepare` and what it shows, with real engines of TensorRT-RTX, which no GPU here can run.

Opening an engine is stood in for: ONNX Runtime runs the graph that the engine was built of.
"""

import io
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from posesdk.bundle import open_bundle, write_bundle, write_manifest
from posesdk.bundle_cache import CACHE_VARIABLE
from posesdk.commands import app
from posesdk.detector import Detector
from posesdk.engines import engine_options
from posesdk.manifest import Variant
from posesdk.prepare import Listener, prepare
from posesdk.prepare_command import _progress
from posesdk_runtimes.engines.key import Machine
from posesdk_runtimes.engines.process import BuildProgress
from posesdk_runtimes.engines.recipe import GraphRecipe, ShapeRange, write_recipes
from posesdk_runtimes.errors import MissingDependencyError
from posesdk_runtimes.onnxruntime import OnnxRuntime
from posesdk_runtimes.registry import RUNTIMES

RUN = CliRunner()
ORIN = Machine(tensorrt="10.3.0", cuda_driver="12.6", gpu="Orin", compute_capability="8.7", l4t="36.4.3")
BUILDER = """
import sys; sys.path[:] = {paths!r}
import posesdk_runtimes.engines.build as engine_build
load = engine_build.load_tensorrt
engine_build.load_tensorrt = lambda name: load("tensorrt_rtx")
engine_build.main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path], spots: Any) -> Path:
    """The tiny model with a variant for TensorRT, which has a recipe, and a golden picture of two people."""
    bundle = make_bundle(tmp_path_factory.mktemp("trt") / "bundle", spots([(50, 60), (140, 70)]))
    (bundle / "cuda-fp32").mkdir()
    for name in ("trunk", "adapt"):
        (bundle / f"cuda-fp32/{name}.onnx").write_bytes((bundle / f"portable/{name}.onnx").read_bytes())
    recipes = {
        "trunk": GraphRecipe({"image": ShapeRange((1, 64, 64, 3), (1, 64, 96, 3), (2, 96, 96, 3))}, workspace_mib=64),
        "adapt": GraphRecipe({"context": ShapeRange((1, 34, 5, 5), (5, 34, 5, 5), (30, 34, 5, 5))}, workspace_mib=64),
    }
    write_recipes(bundle / "cuda-fp32/engine.json", recipes)
    variant = Variant(
        name="cuda-fp32",
        runtime=("tensorrt",),
        devices=("cuda",),
        trunk="cuda-fp32/trunk.onnx",
        adapt="cuda-fp32/adapt.onnx",
    )
    manifest = open_manifest(bundle)
    write_manifest(bundle, manifest.model_copy(update={"variants": (variant, *manifest.variants)}))
    return bundle


def open_manifest(bundle: Path) -> Any:
    """The manifest with the files that are there now."""
    from posesdk.bundle import build_manifest_files
    from posesdk.manifest import parse_manifest

    manifest = parse_manifest((bundle / "manifest.json").read_bytes(), str(bundle))
    return manifest.model_copy(update={"files": build_manifest_files(bundle)})


@pytest.fixture
def orin(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A Jetson, as far as it can be had here; its `machine` may be changed."""
    pytest.importorskip("tensorrt_rtx", reason="engines are built without a GPU by TensorRT-RTX only")
    there = {"machine": ORIN}

    class Opened(OnnxRuntime):
        def __init__(self, path: Path, *, device: str, threads: int | None) -> None:
            assert path.stat().st_size > 1000
            label = json.loads(path.with_suffix(".json").read_text())["label"]
            super().__init__(folder / label.partition("/")[2], threads=threads)

    program = BUILDER.format(paths=[entry for entry in sys.path if entry])
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr("posesdk_runtimes.engines.engine.TensorRTRuntime", Opened)
    monkeypatch.setattr("posesdk_runtimes.engines.engine.inspect_machine", lambda device, module: there["machine"])
    monkeypatch.setattr("posesdk_runtimes.engines.engine.free_memory", lambda index: (8000, 8000))
    monkeypatch.setattr("posesdk_runtimes.engines.engine.build_command", lambda: (sys.executable, "-c", program))
    installed = tuple(
        replace(info, version="10.3.0" if name == "tensorrt" else None, devices=("cuda",))
        for name, info in RUNTIMES.items()
    )
    for module in ("posesdk.prepare", "posesdk.variants"):
        monkeypatch.setattr(f"{module}.available_runtimes", lambda: installed)
    return there


def test_the_command_builds_then_finds_and_names_what_has_changed(folder: Path, orin: dict[str, Any]) -> None:
    first = RUN.invoke(app, ["prepare", str(folder)])
    assert first.exit_code == 0, first.output
    told = first.stdout.splitlines()
    assert told[0] == "tiny: cuda-fp32 (fp32) with tensorrt on cuda:0"
    assert told[1].startswith("  tiny/cuda-fp32/trunk.onnx: built in ")
    assert "(no engine of this graph has been built here)" in told[1]
    assert Path(told[1].rpartition(", ")[2]).is_file()
    assert told[2].startswith("  tiny/cuda-fp32/adapt.onnx: built in ")
    assert told[3].startswith("  golden image: 2 people, ")
    assert told[4].startswith("ready in ")
    assert [line.partition(":")[0] for line in first.stderr.splitlines()] == [
        "building tiny/cuda-fp32/trunk.onnx",
        "building tiny/cuda-fp32/adapt.onnx",
    ]

    second = RUN.invoke(app, ["prepare", str(folder)])
    assert second.stderr == ""
    assert "already there" in second.stdout
    assert second.stdout.splitlines()[-1].startswith("already prepared, ready in ")

    orin["machine"] = replace(ORIN, tensorrt="10.7.0")
    third = RUN.invoke(app, ["prepare", str(folder), "--prune"])
    assert third.stdout.count("built before, but TensorRT 10.3.0 -> 10.7.0") == 2
    assert third.stdout.count("  removed ") == 2
    left = Path(told[1].rpartition(", ")[2]).parent
    assert len(list(left.glob("*.engine"))) == 2


def test_json_tells_the_same_to_programs(folder: Path, orin: dict[str, Any]) -> None:
    done = RUN.invoke(app, ["prepare", str(folder), "--json", "--device", "cuda", "--precision", "fp32"])
    content = json.loads(done.stdout)
    assert (content["v"], content["variant"], content["device"], content["people"]) == (1, "cuda-fp32", "cuda:0", 2)
    assert [engine["built"] for engine in content["engines"]] == [True, True]
    for engine in content["engines"]:
        assert Path(engine["path"]).stat().st_size == engine["size"]


def test_progress_is_told_for_each_graph(folder: Path, orin: dict[str, Any]) -> None:
    heard: list[tuple[str, BuildProgress]] = []
    done = prepare(open_bundle(folder), listener=Listener(on_progress=lambda *told: heard.append(told)))
    assert done.built
    assert {label for label, _ in heard} == {"tiny/cuda-fp32/trunk.onnx", "tiny/cuda-fp32/adapt.onnx"}
    assert any(progress.part for _, progress in heard)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _told(listener: Listener) -> None:
    listener.on_build("m/trunk.onnx", "TensorRT 8 -> 10")
    for part in (None, 0.25, 0.5):
        listener.on_progress("m/trunk.onnx", BuildProgress("Timing tactics", part, 7.0))


def test_a_terminal_sees_a_bar_with_the_reason_above(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with _progress() as listener:
        _told(listener)
        deadline = time.monotonic() + 60
        while "50%" not in terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)  # the bar is drawn some times a second
    for text in ("building m/trunk.onnx: TensorRT 8 -> 10", "m/trunk.onnx: Timing tactics", "50%"):
        assert text in terminal.getvalue()


def test_a_log_file_sees_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with _progress() as listener:
        _told(listener)
    assert capsys.readouterr().err == "building m/trunk.onnx: TensorRT 8 -> 10\n"
    monkeypatch.setattr("posesdk.prepare_command._EVERY", 0.0)
    with _progress() as listener:
        _told(listener)
    told = capsys.readouterr()
    assert told.err.splitlines()[1:] == [
        f"building m/trunk.onnx: Timing tactics{part}, 7 s so far" for part in ("", ", 25%", ", 50%")
    ]
    assert told.out == ""


def test_an_interrupt_ends_with_130_and_leaves_no_engine(
    folder: Path, orin: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(label: str, progress: BuildProgress) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("posesdk.prepare_command._written", lambda: Listener(on_progress=interrupt))
    done = RUN.invoke(app, ["prepare", str(folder)])
    assert done.exit_code == 130
    assert done.stderr == "posesdk: interrupted\n"
    assert [path.name for path in (tmp_path / "cache/engines").iterdir()] == ["build.lock"]


def test_a_detector_uses_what_was_prepared(
    folder: Path, orin: dict[str, Any], spots: Any, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(open_bundle(folder))
    caplog.clear()
    with Detector(folder, device="cuda") as detector:
        assert len(detector(spots([(50, 60), (140, 70)]))) == 2
        assert detector.info.runtime == "tensorrt"
    assert not caplog.records


def test_a_detector_builds_what_was_not_prepared_and_says_so(
    folder: Path, orin: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    Detector(folder, device="cuda").close()
    assert caplog.text.count("`posesdk prepare` does it ahead of time") == 2


def test_a_zipped_bundle_has_its_recipe_too(folder: Path, tmp_path: Path) -> None:
    write_bundle(folder, tmp_path / "tiny.posebundle")
    for path in (folder, tmp_path / "tiny.posebundle"):
        bundle = open_bundle(path)
        trunk = engine_options(bundle, "cuda-fp32/trunk.onnx")
        assert trunk.recipe is not None
        assert trunk.recipe.profiles["image"].max == (2, 96, 96, 3)
        assert trunk.label == "tiny/cuda-fp32/trunk.onnx"
        assert engine_options(bundle, "portable/trunk.onnx").recipe is None


def test_without_tensorrt_one_line_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posesdk.prepare.available_runtimes", lambda: tuple(RUNTIMES.values()))
    done = RUN.invoke(app, ["prepare", str(folder)])
    assert done.exit_code == 3
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "pip install tensorrt" in done.stderr or "python3-libnvinfer" in done.stderr or "venv" in done.stderr
    with pytest.raises(MissingDependencyError):
        prepare(open_bundle(folder))


def test_a_bundle_without_a_variant_for_tensorrt_names_the_conversion(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posesdk_runtimes.registry.JETSON_SIGNS", (tmp_path,))
    done = RUN.invoke(app, ["prepare", str(tiny_bundle)])
    assert done.exit_code == 2
    assert f"`posesdk-convert {tiny_bundle} --target jetson -o tiny-jetson.posebundle`" in done.stderr
    monkeypatch.setattr("posesdk_runtimes.registry.JETSON_SIGNS", ())
    done = RUN.invoke(app, ["prepare"])
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert "`posesdk-convert default --target cuda -o logocap-nano-cuda.posebundle`" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--precision", "int8"], 2, "no variant in int8"),
        (["--variant", "jetson-fp16"], 2, "no variant 'jetson-fp16': it has cuda-fp32"),
        (["--variant", "onnx-fp32"], 2, "nothing for tensorrt in onnx-fp32"),
        (["--device", "cpu"], 3, "cannot run on cpu"),
        (["--device", "toaster"], 2, "toaster"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(
    folder: Path, orin: dict[str, Any], arguments: list[str], code: int, message: str
) -> None:
    done = RUN.invoke(app, ["prepare", str(folder), *arguments])
    assert done.exit_code == code
    assert message in done.stderr
