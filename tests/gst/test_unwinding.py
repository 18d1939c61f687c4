"""C++ exceptions in a process that has loaded GStreamer: in processes of their own, where libraries load in order."""

import hashlib
import json
import subprocess
import sys
import zipfile

import pytest

from posesdk.gst import why_unavailable

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

CATCH = """
import onnxruntime
try:
    onnxruntime.InferenceSession(b"no model")
except Exception as error:
    print("caught", type(error).__name__)
"""
GSTREAMER = "import gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None)\n"
ORDERS = {
    "posesdk.gst first": "import posesdk.gst\nimport numpy\n" + GSTREAMER + CATCH,
    "posesdk.gst loads GStreamer": "import cv2\nfrom posesdk.gst.bindings import Gst\n" + CATCH,
    "GStreamer before numpy": GSTREAMER + "import numpy\nimport posesdk.gst\n" + CATCH,
}

ELEMENT = """
import posesdk.gst, sys
posesdk.gst.register()
element = Gst.ElementFactory.make("logocappose")
bus = Gst.Bus.new()
element.set_bus(bus)
element.props.model, element.props.runtime, element.props.device = sys.argv[1], sys.argv[2], sys.argv[3]
assert element.set_state(Gst.State.PAUSED) == Gst.StateChangeReturn.FAILURE
print("caught", bus.pop_filtered(Gst.MessageType.ERROR).parse_error()[0].message)
"""


def run(text, *arguments):
    """What a program prints, in a process of its own."""
    path = ":".join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", text, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return done.stdout


@pytest.mark.parametrize("order", ORDERS)
def test_a_runtime_raises_instead_of_aborting(order):
    assert run(ORDERS[order]).startswith("caught")


@pytest.mark.parametrize("before", ["import numpy\n" + GSTREAMER, GSTREAMER + "import numpy\n", "import numpy, cv2\n"])
@pytest.mark.parametrize(("runtime", "device"), [("onnxruntime", "cpu"), ("openvino", "npu")])
def test_the_element_tells_what_its_runtime_raises(converted_bundle, tmp_path, before, runtime, device):
    """A graph that is cut off, and a device that is not there."""
    bundle = converted_bundle
    if runtime == "onnxruntime":
        bundle = tmp_path / "damaged.posebundle"
        damage(converted_bundle, bundle)
    program = before + ("" if "Gst" in before else "from posesdk.gst.bindings import Gst\n") + ELEMENT
    assert run(program, str(bundle), runtime, device).startswith("caught")


def damage(bundle, path):
    """Cuts the ONNX graphs off, and writes their new sizes and hashes into the manifest."""
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(path, "w") as new:
        cut = {name: old.read(name)[:-99] for name in old.namelist() if name.endswith(".onnx")}
        manifest = json.loads(old.read("manifest.json"))
        for file in manifest["files"]:
            if content := cut.get(file["path"]):
                file.update({"size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        for name in old.namelist():
            content = json.dumps(manifest) if name == "manifest.json" else cut.get(name, old.read(name))
            new.writestr(name, content)
