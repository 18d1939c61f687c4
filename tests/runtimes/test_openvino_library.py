"""The Python module of OpenVINO holds what a device needs, and the rest when it is asked for."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)


def python(program: str, graph: Path) -> subprocess.CompletedProcess[str]:
    """A fresh process, in which nothing has loaded OpenVINO yet, with telemetry as it is outside of a CI."""
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    line = [sys.executable, "-W", "error", "-c", program, str(graph)]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)


CONVERTED = """
import sys
from posesdk_runtimes.openvino_library import import_openvino
openvino = import_openvino()
assert not [name for name in sys.modules if name.startswith("openvino.tools.ovc")]
model = openvino.convert_model(sys.argv[1])
assert [port.any_name for port in model.inputs] == ["image"]
assert "openvino_telemetry" not in sys.modules
"""


def test_the_converter_is_loaded_when_another_part_of_the_program_calls_it(graph: Path) -> None:
    done = python(CONVERTED, graph)
    assert done.returncode == 0, done.stderr


LOADED_BEFORE = """
import sys
sys.modules["openvino_telemetry"] = None
import openvino
own = openvino.convert_model
from posesdk_runtimes.openvino_library import import_openvino
assert import_openvino() is openvino and openvino.convert_model is own
assert sys.modules["openvino.tools.ovc"].convert_model is own
"""


def test_a_module_that_the_program_has_loaded_before_stays_as_it_is(graph: Path) -> None:
    done = python(LOADED_BEFORE, graph)
    assert done.returncode == 0, done.stderr


ON_THE_CPU = """
import sys
import numpy
from posesdk_runtimes.openvino import OpenVINORuntime
OpenVINORuntime(sys.argv[1], device="cpu").run({"image": numpy.zeros((1, 8, 8, 3), numpy.uint8)})
print(open("/proc/self/maps").read())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux which libraries are loaded")
def test_a_graph_on_the_cpu_loads_no_other_device(graph: Path) -> None:
    done = python(ON_THE_CPU, graph)
    assert done.returncode == 0, done.stderr
    assert "openvino_intel_cpu_plugin" in done.stdout or "openvino_arm_cpu_plugin" in done.stdout
    assert "gpu_plugin" not in done.stdout
    assert "npu_plugin" not in done.stdout
