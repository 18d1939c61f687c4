"""Imports only go down: runtimes < sdk < training < converters < samples; torch and its like stay off the device."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {"posesdk_runtimes": 1, "posesdk": 2, "posesdk_training": 3, "posesdk_converters": 4, "samples": 5}
SOURCES = {
    "posesdk_runtimes": ROOT / "runtimes" / "posesdk_runtimes",
    "posesdk": ROOT / "sdk" / "posesdk",
    "posesdk_training": ROOT / "training" / "posesdk_training",
    "posesdk_converters": ROOT / "converters" / "posesdk_converters",
    "samples": ROOT / "samples",
}
TRAINING_FLOOR = 3
NOT_ON_DEVICE = {"torch", "torchvision", "onnx", "onnxscript", "pycocotools", "lightning", "safetensors"}


def faults(source: str, package: str) -> list[str]:
    """What one file of `package` imports and must not, in words."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.append(f"line {node.lineno}: relative import")
            continue
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            found.append(f"line {node.lineno}: star import")
        found += [f"line {node.lineno}: {fault}" for name in _imported(node) if (fault := _fault(name, package))]
    return found


def _imported(node: ast.AST) -> list[str]:
    """Top-level packages that a statement imports, by `import`, `from` or import_module("...")."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = ast.unparse(node.func)
        if called in ("import_module", "importlib.import_module", "__import__"):
            names = [str(node.args[0].value)]
    return [name.split(".")[0] for name in names]


def _fault(name: str, package: str) -> str | None:
    floor = FLOORS[package]
    if FLOORS.get(name, 0) > floor:
        return f"{package} (floor {floor}) imports {name} (floor {FLOORS[name]})"
    if floor < TRAINING_FLOOR and name in NOT_ON_DEVICE:
        return f"{package} runs on the device and imports {name}"
    return None


@pytest.mark.parametrize("package", FLOORS)
def test_imports_of_every_module_go_down(package):
    modules = sorted(SOURCES[package].rglob("*.py"))
    assert modules, f"no module of {package} was read"
    found = {str(path.relative_to(ROOT)): bad for path in modules if (bad := faults(path.read_text("utf-8"), package))}
    assert not found


def test_gstreamer_stays_in_its_package():
    """But for the command line and doctor, where a user asks for it by name."""
    users = set()
    for path in (path for package in ("posesdk_runtimes", "posesdk") for path in SOURCES[package].rglob("*.py")):
        source = path.read_text("utf-8")
        names = {name for node in ast.walk(ast.parse(source)) for name in _imported(node)}
        if "gi" in names or re.search(r"(?:from|import) posesdk\.gst\b", source):
            users.add(path.relative_to(ROOT).parts[2])
    assert users == {"gst", "commands.py", "doctor.py"}


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        pytest.param("import posesdk", "posesdk_runtimes", "floor 2", id="sdk-in-runtimes"),
        pytest.param("from posesdk_training.losses import x", "posesdk", "floor 3", id="training-in-sdk"),
        pytest.param("import posesdk_converters.onnx as o", "posesdk_training", "floor 4", id="converters-in-training"),
        pytest.param("import torch.nn as nn", "posesdk", "imports torch", id="torch-in-sdk"),
        pytest.param("def f():\n    import onnx", "posesdk_runtimes", "line 2", id="inside-a-function"),
        pytest.param("from pycocotools.coco import COCO", "posesdk", "pycocotools", id="pycocotools-in-sdk"),
        pytest.param("import importlib\nimportlib.import_module('lightning.x')", "posesdk", "lightning", id="named"),
        pytest.param("from safetensors import safe_open", "posesdk_runtimes", "safetensors", id="safetensors"),
        pytest.param("if x:\n    from .poses import Poses", "posesdk", "relative", id="relative"),
        pytest.param("from . import poses", "posesdk_converters", "relative", id="relative-package"),
        pytest.param("from posesdk import *", "samples", "star", id="star"),
    ],
)
def test_checker_finds_a_forbidden_import(source, package, expected):
    found = faults(source, package)
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ("from posesdk_runtimes.errors import PoseSDKError\nimport numpy, onnxruntime", "posesdk"),
        ("import torch, onnx\nfrom posesdk.spec import ModelSpec", "posesdk_training"),
        ("from posesdk_training import config\nfrom posesdk import Detector", "posesdk_converters"),
        ("import posesdk_runtimes.base", "posesdk_runtimes"),
    ],
    ids=["sdk-on-runtimes", "training-on-sdk", "converters-on-training", "own-package"],
)
def test_checker_lets_a_downward_import_pass(source, package):
    assert faults(source, package) == []
