"""docs/gstreamer.md says what the elements are: their properties, and pipelines that can be made."""

import re
import shlex
from pathlib import Path

import pytest

import posesdk.gst
from posesdk.gst import why_unavailable

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDE = (DOCS / "gstreamer.md").read_text("utf-8")
PAGES = (DOCS.parent / "README.md", DOCS / "cli.md", DOCS / "gstreamer.md", DOCS / "gstreamer-samples.md")
CODE = re.compile(r"^```(?:sh|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STAND_INS = {"nvv4l2decoder": "openh264dec", "nvvidconv": "videoconvert"}
"""For elements that a Jetson alone has."""


def pipelines() -> list[str]:
    """What follows `posesdk gst launch`, but for pipelines whose beginning is left to the reader."""
    blocks = [block for page in PAGES for block in CODE.findall(page.read_text("utf-8"))]
    lines = [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    launched = [line for line in lines if line.startswith("posesdk gst launch ")]
    words = [shlex.split(line, comments=True) for line in launched]
    found = [next(word for word in command[3:] if not word.startswith("-")) for command in words]
    return [pipeline for pipeline in found if not pipeline.startswith("...")]


@pytest.fixture(autouse=True)
def registered():
    posesdk.gst.register()


@pytest.mark.parametrize("pipeline", pipelines())
def test_documented_pipeline_can_be_made(pipeline):
    from posesdk.gst.bindings import GLib, Gst

    for name, other in STAND_INS.items():
        pipeline = pipeline.replace(name, other)
    try:
        made = Gst.parse_launch(pipeline)
    except GLib.Error as error:
        if error.matches(Gst.ParseError.quark(), Gst.ParseError.NO_SUCH_ELEMENT):
            pytest.skip(error.message)
        raise
    assert "logocappose" in [element.get_factory().get_name() for element in elements(made)]


def elements(made) -> list:
    found, iterator = [], made.iterate_elements()
    while True:
        _, element = iterator.next()
        if element is None:
            return found
        found.append(element)


def documented(element: str) -> dict[str, list[str]]:
    """The rows of an element's table: default, range, changes."""
    section = GUIDE.partition(f"\n### {element}\n")[2].partition("\n#")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line[:3] == "| `"
    ]
    return {row[0].strip("`"): row[1:4] for row in rows}


def actual(element: str) -> dict[str, list[str]]:
    from posesdk.gst.bindings import GObject, Gst

    made = Gst.ElementFactory.make(element)
    inherited = {"name", "parent"} if element == "logocappose" else {"name", "parent", "qos"}
    specs = [spec for spec in GObject.list_properties(made) if spec.name not in inherited]
    return {spec.name: [default(made, spec), extent(spec), mutable(spec)] for spec in specs}


def default(made, spec) -> str:
    from posesdk.gst.bindings import GObject

    value = made.get_property(spec.name)
    if not int(spec.flags) & int(GObject.ParamFlags.WRITABLE):
        return "-"
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    return str(value).lower() if isinstance(value, bool) else f"{value:.10g}"


def extent(spec) -> str:
    from posesdk.gst.bindings import GLib

    kinds = {"gchararray": "text", "gboolean": "bool"}
    if spec.value_type.name in kinds:
        return kinds[spec.value_type.name]
    open_end = spec.maximum == GLib.MAXUINT64
    return f"from {spec.minimum:g}" if open_end else f"{spec.minimum:g} to {spec.maximum:.10g}"


def mutable(spec) -> str:
    from posesdk.gst.bindings import GObject, Gst

    flags = int(spec.flags)
    if not flags & int(GObject.ParamFlags.WRITABLE):
        return "read only"
    return "READY" if flags & int(Gst.PARAM_MUTABLE_READY) else "PLAYING"


@pytest.mark.parametrize("element", ["logocappose", "logocapoverlay"])
def test_table_has_every_property_as_the_element_has_it(element):
    assert documented(element) == actual(element)


def test_element_without_a_table_has_no_properties():
    assert set(actual("logocapposejson")) - {"qos"} == set()


def test_formats_are_those_of_the_pads():
    from posesdk.gst.bindings import Gst

    caps = Gst.ElementFactory.make("logocappose").get_static_pad("sink").get_pad_template().get_caps()
    formats = re.findall(r"\w+", caps.to_string().partition("{")[2].partition("}")[0].replace("(string)", ""))
    told = re.search(r"Frames come in ([\w, ]+), from (\d+) to (\d+) pixels", GUIDE)
    assert re.split(r", | or ", told[1]) == formats
    assert f"[ {told[2]}, {told[3]} ]" in caps.to_string()


def test_modes_and_metadata_are_those_of_the_element():
    from posesdk.gst.settings import ATTACH, MODES

    first_cells = re.findall(r"^\| `(\w+)` \|", GUIDE, re.MULTILINE)
    assert set(MODES) <= set(first_cells)
    assert set(ATTACH) <= set(first_cells)
