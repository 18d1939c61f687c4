import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import posesdk.gst
from loader_check import need_the_loader
from posesdk.gst import plugin_path, why_unavailable
from posesdk.gst.plugin_loader import loader_library

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

NAMES = ["logocappose", "logocapposejson", "logocapoverlay"]
INSPECTION = Path(__file__).with_name("logocappose.inspect.txt")
HEAVY = ("numpy", "cv2", "onnxruntime", "openvino", "pydantic")


def python(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_package_imports_without_gi_and_numpy():
    assert python("import sys, posesdk.gst; print({'gi', 'numpy'} & set(sys.modules))") == "set()"


def test_elements_are_made_of_the_standard_library_and_gi_alone():
    script = f"import sys, posesdk.gst.factories; print([name for name in {HEAVY} if name in sys.modules])"
    assert python(script) == "[]"


def test_registering_twice_gives_every_element():
    posesdk.gst.register()
    posesdk.gst.register()
    from posesdk.gst.bindings import Gst

    for name in NAMES:
        element = Gst.ElementFactory.make(name)
        assert element.get_factory().get_name() == name
        assert element.get_name().rstrip("0123456789") == name


def test_there_is_one_shim_for_each_element_and_no_package():
    folder = plugin_path() / "python"
    assert sorted(path.stem for path in folder.glob("*.py")) == sorted(NAMES)
    assert not (folder / "__init__.py").exists()


@pytest.fixture
def loader(tmp_path) -> dict[str, str]:
    """Variables for a GStreamer that knows the core, video tests and Python's loader, from a registry of its own."""
    from posesdk.gst.bindings import Gst

    need_the_loader()
    python = loader_library()
    system = tmp_path / "plugins"
    system.mkdir()
    plugins = [Gst.Registry.get().find_plugin(name) for name in ("coreelements", "videotestsrc")]
    for file in (python, *(Path(plugin.get_filename()) for plugin in plugins)):
        (system / file.name).symlink_to(file)
    site = Path(sys.prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    return {
        **os.environ,
        "GST_REGISTRY": str(tmp_path / "registry.bin"),
        "GST_PLUGIN_SYSTEM_PATH": str(system),
        "GST_PLUGIN_PATH": str(plugin_path()),
        "PATH": f"/usr/bin:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(site), *(folder for folder in sys.path if folder.endswith("runtimes"))]),
    }


def run(*command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)


def test_shims_show_every_element_to_the_plugin_loader(loader):
    for name in NAMES:
        done = run("gst-inspect-1.0", name, env=loader)
        assert done.returncode == 0, done.stderr
        assert "Python plugin" in done.stdout or "loader for plugins written in python" in done.stdout


SOURCE = "videotestsrc num-buffers=2 ! video/x-raw,format=RGB,width=320,height=240"


def gst_launch(pipeline: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return run("gst-launch-1.0", "-m", *pipeline.split(), env=env)


def test_plain_gst_launch_finds_people_with_the_default_model(loader):
    done = gst_launch(f"{SOURCE} ! logocappose messages=true ! fakesink", loader)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("logocappose, json=") == 2
    assert "Got EOS from element" in done.stdout


def test_plain_gst_launch_names_a_model_that_is_not_there(loader):
    done = gst_launch(f"{SOURCE} ! logocappose model=/nowhere/x.posebundle ! fakesink", loader)
    assert done.returncode != 0
    assert "/nowhere/x.posebundle" in done.stderr


def test_element_is_there_without_numpy_and_the_bus_names_the_package(loader, tmp_path):
    """The loader keeps an import error for good, as an element that does not exist."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "numpy.py").write_text("raise ModuleNotFoundError(\"No module named 'numpy'\", name='numpy')\n", "utf-8")
    loader["PYTHONPATH"] = os.pathsep.join([str(hidden), loader["PYTHONPATH"]])
    done = run("gst-inspect-1.0", "logocappose", env=loader)
    assert "Filter/Analyzer/Video" in done.stdout, done.stderr
    done = gst_launch(f"{SOURCE} ! logocappose ! fakesink", loader)
    assert done.returncode != 0
    assert done.stderr.count("ERROR: from element") == 1
    assert "ERROR: from element /GstPipeline:pipeline0/GstLogocapPose:logocappose0" in done.stderr
    assert "numpy" in done.stderr
    assert "pip install posesdk" in done.stderr


def test_gst_inspect_shows_what_it_did_before(loader, tmp_path):
    shown = normalised(run("gst-inspect-1.0", "logocappose", env=loader).stdout)
    new = tmp_path / INSPECTION.name
    new.write_text(shown)
    assert shown == INSPECTION.read_text(), f"where the change is meant: cp {new} {INSPECTION}"


def normalised(text):
    """Without the plugin, which is the loader's and names its version, and without GStreamer's way of indenting.

    GStreamer 1.26 has a heading over flags that Python cannot set, and writes the types of arguments as in C.
    """
    text = text[: text.index("Plugin Details")] + text[text.index("GObject\n") :]
    for new, old in (("Element Flags:\n", ""), ("GstElement * ", "GstElement* "), ("const gchar * ", "gchararray ")):
        text = text.replace(new, old)
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line)
