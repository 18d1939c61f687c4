import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import posesdk.gst
from posesdk.gst import plugin_path, why_unavailable
from posesdk.gst.plugin_loader import loader_library

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

NAMES = ["logocappose", "logocapposejson", "logocapoverlay"]
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

    python = loader_library()
    if python is None or shutil.which("gst-launch-1.0") is None:
        pytest.skip("needs gstreamer1.0-python3-plugin-loader and gstreamer1.0-tools")
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


def test_plain_gst_launch_finds_people_with_the_default_model(loader):
    pipeline = "videotestsrc num-buffers=2 ! video/x-raw,format=RGB,width=320,height=240 ! logocappose ! fakesink"
    done = run("gst-launch-1.0", *pipeline.split(), env=loader)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Got EOS from element" in done.stdout


def test_element_is_there_without_numpy_and_the_bus_names_the_package(loader, tmp_path):
    """The loader keeps an import error for good, as an element that does not exist."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "numpy.py").write_text("raise ModuleNotFoundError(\"No module named 'numpy'\", name='numpy')\n", "utf-8")
    loader["PYTHONPATH"] = os.pathsep.join([str(hidden), loader["PYTHONPATH"]])
    done = run("gst-inspect-1.0", "--exists", "logocappose", env=loader)
    assert done.returncode == 0, done.stderr
    pipeline = "videotestsrc num-buffers=2 ! video/x-raw,format=RGB ! logocappose ! fakesink"
    done = run("gst-launch-1.0", *pipeline.split(), env=loader)
    assert done.returncode != 0
    assert "ERROR: from element /GstPipeline:pipeline0/GstLogocapPose:logocappose0" in done.stdout + done.stderr
    assert "numpy" in done.stdout + done.stderr
