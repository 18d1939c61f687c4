"""The built wheel, alone: installed beside its declared dependencies only, without the source folders."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import pytest
from packaging.requirements import Requirement

from posesdk_converters.rendering.render import render_people

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = tuple(
    ROOT / name
    for name in (
        "sdk/posesdk",
        "runtimes/posesdk_runtimes",
        "training/posesdk_training",
        "converters/posesdk_converters",
    )
)
MODELS = ROOT / "sdk/posesdk/models"
MEBIBYTE = 2**20

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Installation:
    """A virtual environment that holds the wheel, and an empty folder to work in."""

    bin: Path
    site: Path
    work: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        program = self.bin / command[0]
        return subprocess.run(
            [program, *command[1:]],
            cwd=self.work,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("posesdk-*.whl")
    return path


@pytest.fixture(scope="module")
def installation(wheel, tmp_path_factory) -> Installation:
    """The wheel and what its metadata asks for, taken from this environment: no network, and nothing undeclared."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    python = folder / "venv" / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", python, *install], check=True)
    for name in _closure(_requirements(wheel)):
        _copy_distribution(name, site)
    (folder / "work").mkdir()
    return Installation(python.parent, site, folder / "work")


def _requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return re.findall(r"^Requires-Dist: (.*)$", archive.read(metadata).decode(), re.MULTILINE)


def _closure(requirements: list[str]) -> set[str]:
    """Names of the distributions that a plain install of these requirements brings."""
    found: set[str] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        name = requirement.name.lower()
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
            continue
        found.add(name)
        inner = importlib.metadata.requires(name) or []
        waiting += [(Requirement(text), asked) for text in inner for asked in ("", *requirement.extras)]
    return found


def _copy_distribution(name: str, site: Path) -> None:
    distribution = importlib.metadata.distribution(name)
    for file in distribution.files or []:
        if ".." in file.parts or "__pycache__" in file.parts:
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(distribution.locate_file(file), target)


def test_wheel_is_small_and_holds_every_module_types_licence_and_model(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"{package.name}/py.typed" for package in PACKAGES} <= names
    modules = {file.relative_to(package.parent).as_posix() for package in PACKAGES for file in package.rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    models = {file.relative_to(MODELS.parents[1]).as_posix(): file.stat().st_size for file in MODELS.iterdir()}
    assert {"posesdk/models/default.posebundle", "posesdk/models/default.safetensors"} <= models.keys() <= names
    assert wheel.stat().st_size < sum(models.values()) + 2 * MEBIBYTE


def test_installed_package_is_not_the_source_folder_and_has_no_torch(installation):
    script = "import importlib.util as u, posesdk; print(posesdk.__file__); print(u.find_spec('torch'))"
    done = installation.run("python", "-c", script)
    assert done.returncode == 0, done.stderr
    where, torch = done.stdout.split()
    assert Path(where).is_relative_to(installation.site)
    assert torch == "None"


def test_import_alone_loads_no_heavy_library(installation):
    heavy = "{'cv2', 'onnxruntime', 'openvino', 'rich', 'typer', 'pydantic'}"
    done = installation.run("python", "-c", f"import sys, posesdk; print(sorted({heavy} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_detect_runs_from_another_folder(installation):
    picture = installation.work / "people.png"
    cv2.imwrite(str(picture), render_people(seed=1, people=3, size=(240, 320), samples=1).image)
    done = installation.run("posesdk", "detect", "people.png", "--json", "-")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["v"] == 1
    (frame,) = found["frames"]
    assert (frame["width"], frame["height"]) == (320, 240)
    assert frame["model"] == "logocap-nano"
    assert len(frame["persons"]) >= 1
    assert all(len(person["keypoints"]) == 17 for person in frame["persons"])


def test_a_missing_picture_is_one_clear_line_and_exit_code_6(installation):
    done = installation.run("posesdk", "detect", "nothing-here.png")
    assert done.returncode == 6
    assert "nothing-here.png" in done.stderr
    assert "Traceback" not in done.stderr


def test_pipeline_without_gstreamers_bindings_ends_with_code_3_and_the_remedy(installation):
    done = installation.run("posesdk", "gst", "launch", "fakesrc ! fakesink")
    assert done.returncode == 3, done.stderr
    assert "python3-gst-1.0" in done.stderr
    assert "Traceback" not in done.stderr
    doctor = installation.run("posesdk", "doctor")
    assert "missing GStreamer: Python finds no module gi" in doctor.stdout, doctor.stderr


def test_path_of_the_elements_is_that_of_the_installed_package(installation):
    done = installation.run("posesdk", "gst", "env")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip().partition("=")[2].partition(os.pathsep)[0])
    assert folder.is_relative_to(installation.site)
    shims = {path.stem for path in (folder / "python").iterdir() if path.suffix == ".py"}
    assert shims == {"logocappose", "logocapposejson", "logocapoverlay"}


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("posesdk-train", "fit", "logocap-nano"), "training"),
        (("posesdk-train", "evaluate", "m.safetensors", "--annotations", "a.json", "--images", "."), "training"),
        (("posesdk-convert", "m.safetensors", "--target", "onnx", "--output", "m.posebundle"), "convert"),
    ],
)
def test_command_whose_libraries_are_missing_names_the_extra_and_ends_with_code_3(installation, command, extra):
    done = installation.run(*command)
    assert done.returncode == 3, done.stderr
    assert f"posesdk[{extra}]" in done.stderr
    assert "Traceback" not in done.stderr
