"""What importing posesdk and using a detector loads, starts and writes: each in a fresh process."""

import ast
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import posesdk
from posesdk.bundle_cache import CACHE_VARIABLE
from posesdk_runtimes.errors import PoseSDKError

HEAVY = {
    "PIL",
    "ai_edge_litert",
    "cv2",
    "gi",
    "lightning",
    "matplotlib",
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "paho",
    "psutil",
    "pydantic",
    "rich",
    "tensorrt",
    "tflite_runtime",
    "torch",
    "typer",
}
OF_DETECTORS = {"cv2", "numpy", "pydantic"}
"""What every detector needs."""

AUDIT = """
import sys
sys.dont_write_bytecode = True
seen = []
def audit(event, values):
    writes = event == "open" and isinstance(values[0], str) and set(values[1] or "") & set("wax+")
    if event.startswith(("socket.", "subprocess.", "os.mkdir", "os.fork", "urllib.")) or writes:
        seen.append((event, str(values)))
sys.addaudithook(audit)
"""
"""Notes in `seen` what reaches out of the process."""
DETECTS = """
import numpy, sys
from posesdk import Detector
with Detector(sys.argv[1], runtime=sys.argv[2]) as detector:
    assert len(detector(numpy.load(sys.argv[3]))) == 1
"""


def python(code: str, *arguments: str) -> str:
    """What a fresh process that runs `code` prints; its warnings are errors."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    line = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(code: str, *arguments: str) -> set[str]:
    """The heavy libraries that are loaded after `code`."""
    return HEAVY & set(python(f"{code}\nimport sys\nprint(*sys.modules)", *arguments).split())


@pytest.fixture
def picture(spots, tmp_path: Path) -> Path:
    np.save(tmp_path / "picture.npy", spots([(64, 64)]))
    return tmp_path / "picture.npy"


def test_importing_the_package_loads_nothing_heavy_and_its_classes_no_backend():
    assert loaded("import posesdk") == set()
    assert loaded("from posesdk import SourceError, __version__") == set()
    assert loaded("from posesdk import *") == OF_DETECTORS


def test_importing_the_package_starts_nothing_and_writes_nothing():
    tasks = "len(os.listdir('/proc/self/task'))" if sys.platform.startswith("linux") else "1"
    python(
        f"{AUDIT}\n"
        "import os, threading, posesdk\n"
        f"assert (seen, {tasks}, threading.active_count()) == ([], 1, 1), seen\n"
        "posesdk.Detector\n"  # numpy makes its threads now
        "assert (seen, threading.active_count()) == ([], 1), seen\n"
    )


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_detector_loads_its_own_backend_and_no_other(tiny_folder: Path, picture: Path, runtime: str):
    if importlib.util.find_spec(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    assert loaded(DETECTS, str(tiny_folder), runtime, str(picture)) == OF_DETECTORS | {runtime}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_detector_starts_no_process_and_writes_into_its_cache_alone(
    tiny_bundle: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
):
    if importlib.util.find_spec(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    cache = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    told = python(f"{AUDIT}\n{DETECTS}\nprint(*seen, sep='\\n')", str(tiny_bundle), runtime, str(picture))
    assert sorted(path.name for path in cache.rglob("*.onnx")) == ["adapt.onnx", "trunk.onnx"]
    assert not [line for line in told.splitlines() if str(cache) not in line]


@pytest.mark.parametrize("arguments", [["--version"], ["detect", "--help"], ["gst", "--help"]], ids=" ".join)
def test_the_command_line_loads_no_detector_to_tell_of_itself(arguments: list[str]):
    code = (
        "import sys\nfrom posesdk.cli import main\ntry:\n    main()\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert loaded(code, *arguments) <= {"pydantic", "rich", "typer"}  # of which typer loads what it needs


def test_every_public_name_is_there_and_no_other():
    for name in posesdk.__all__:
        assert getattr(posesdk, name) is not None
    assert set(posesdk.__all__) <= set(dir(posesdk))
    assert issubclass(posesdk.SourceError, PoseSDKError)
    with pytest.raises(AttributeError, match="module 'posesdk' has no attribute 'Nothing'"):
        _ = posesdk.Nothing
    with pytest.raises(ImportError, match="cannot import name 'Nothing' from 'posesdk'"):
        exec("from posesdk import Nothing")


def test_a_star_gives_the_public_names_alone():
    names: dict[str, object] = {}
    exec("from posesdk import *", names)
    assert names.keys() - {"__builtins__"} == set(posesdk.__all__)


def test_type_checkers_see_the_names_that_are_loaded_later_where_they_come_from():
    tree = ast.parse(Path(posesdk.__file__).read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen.keys() | {"__version__"} == set(posesdk.__all__)
    for name, module in seen.items():
        assert getattr(importlib.import_module(module), name) is getattr(posesdk, name)


def test_threads_that_ask_first_get_the_same_class():
    code = (
        "import posesdk\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    found = list(pool.map(lambda _: posesdk.Detector, range(32)))\n"
        "print(len(set(found)))\n"
    )
    assert python(code).strip() == "1"
