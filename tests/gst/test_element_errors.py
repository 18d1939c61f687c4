"""What goes wrong in `logocappose` is one error on the bus, of the kind that the table in the documentation names."""

import hashlib
import json
import sys
import zipfile

import pytest

from posesdk.gst import why_unavailable

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")


def only_error(one):
    """Domain, code, text and debug text of the one error that was posted."""
    from posesdk.gst.bindings import Gst

    (message,) = one.messages(Gst.MessageType.ERROR)
    error, debug = message.parse_error()
    return error.domain, error.code, error.message, debug


def kind(name):
    """Domain and code of a row of the table."""
    from posesdk.gst.bindings import GLib, Gst

    code = {
        "not found": Gst.ResourceError.NOT_FOUND,
        "init": Gst.LibraryError.INIT,
        "settings": Gst.LibraryError.SETTINGS,
        "failed": Gst.StreamError.FAILED,
    }[name]
    return GLib.quark_to_string(type(code).quark()), int(code)


def assert_does_not_start(one, expected, *words):
    from posesdk.gst.bindings import Gst

    assert one.start(Gst.State.PAUSED) == Gst.StateChangeReturn.FAILURE
    domain, code, text, debug = only_error(one)
    assert (domain, code) == kind(expected)
    for word in words:
        assert word in text
    assert "Traceback" not in debug  # gst-launch-1.0 prints it, and the text says all
    assert one.stop() == Gst.StateChangeReturn.SUCCESS


def corrupted(bundle, folder, change):
    """A copy of a bundle, `change(name, content)` giving the content of every file."""
    path = folder / "changed.posebundle"
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return path


def test_a_model_that_is_not_there_is_not_found(harness, tmp_path):
    path = tmp_path / "nobody.posebundle"
    assert_does_not_start(harness(model=str(path)), "not found", "nobody.posebundle")


def test_a_name_that_no_shipped_model_has_is_not_found(harness):
    assert_does_not_start(
        harness(model="no-model"), "not found", "no-model", "comes with posesdk: it has dac-nano, default"
    )


def test_a_model_that_is_no_bundle_cannot_be_opened(harness, tmp_path):
    path = tmp_path / "broken.posebundle"
    path.write_bytes(b"no bundle")
    assert_does_not_start(harness(model=str(path)), "init", "broken.posebundle")


def test_a_damaged_bundle_cannot_be_opened(harness, tmp_path, converted_bundle):
    cut = tmp_path / "cut.posebundle"
    content = converted_bundle.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    assert_does_not_start(harness(model=str(cut)), "init", "cut.posebundle")


def test_a_bundle_whose_graph_is_damaged_cannot_be_opened(harness, tmp_path, converted_bundle):
    bundle = corrupted(
        converted_bundle, tmp_path, lambda name, content: content[:-9] if name.endswith(".onnx") else content
    )
    assert_does_not_start(harness(model=str(bundle)), "init", "changed.posebundle")


def test_graphs_of_other_dimensions_than_the_manifest_says_cannot_be_opened(harness, tmp_path, converted_bundle):
    from posesdk.bundle import open_bundle

    variant = next(one for one in open_bundle(converted_bundle).manifest.variants if one.trunk.endswith(".onnx"))
    with zipfile.ZipFile(converted_bundle) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}

    def swap(name, content):
        return contents[variant.adapt] if name == variant.trunk else content

    bundle = corrupted(converted_bundle, tmp_path, _with_hashes(swap, contents))
    assert_does_not_start(harness(model=str(bundle)), "init", "changed.posebundle")


def _with_hashes(change, contents):
    """`change`, and a manifest that has sizes and hashes of what it gives."""

    def give(name, content):
        if name != "manifest.json":
            return change(name, content)
        manifest = json.loads(content)
        for file in manifest["files"]:
            new = change(file["path"], contents[file["path"]])
            file.update({"size": len(new), "sha256": hashlib.sha256(new).hexdigest()})
        return json.dumps(manifest)

    return give


@pytest.mark.parametrize(
    ("settings", "expected", "words"),
    [
        ({"mode": "fast"}, "settings", ("mode", "fast", "skip")),
        ({"attach": "custom+everything"}, "settings", ("attach", "everything", "roi")),
        ({"attach": "none+custom"}, "settings", ("attach", "none+custom")),
        ({"options": "colour=red"}, "settings", ("options", "colour=red", "variant")),
        ({"options": "batch=2,batch=3"}, "settings", ("batch", "twice", "'2'", "'3'")),
        ({"options": "batch=none"}, "settings", ("batch", "none")),
        ({"runtime": "abacus"}, "settings", ("abacus", "onnxruntime")),
        ({"precision": "fp64"}, "settings", ("fp64",)),
        ({"device": "cuda:7"}, "init", ("cuda:7",)),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(harness, settings, expected, words):
    assert_does_not_start(harness(**settings), expected, *words)


def test_one_instance_id_with_two_settings_is_refused(harness):
    from posesdk.gst.bindings import Gst

    first, second = harness(instance_id="one"), harness(instance_id="one", threads=2)
    assert first.start() == Gst.StateChangeReturn.SUCCESS
    assert_does_not_start(second, "settings", "one", "threads")


def test_an_exception_while_starting_is_told(harness, monkeypatch):
    from posesdk.gst import opening
    from posesdk.gst.bindings import Gst

    def broken(*args):
        raise OSError("the disk is on fire")

    monkeypatch.setattr(opening, "open_client", broken)
    one = harness()
    assert one.start() == Gst.StateChangeReturn.FAILURE
    domain, code, text, debug = only_error(one)
    assert "the disk is on fire" in text
    assert "open_client" in debug
    assert (domain, code) == kind("failed")


def test_a_python_package_that_is_missing_is_told_when_the_element_starts(harness, monkeypatch):
    monkeypatch.setitem(sys.modules, "posesdk.gst.stream", None)  # as an ImportError on the way there
    assert_does_not_start(harness(), "init", "posesdk", "pip install")


def test_an_exception_of_the_model_ends_a_sync_stream(playing, picture, model):
    from posesdk.gst.bindings import Gst
    from posesdk_runtimes.errors import RuntimeFault

    one = playing(mode="sync")
    model.fail(RuntimeFault("the accelerator has gone"))
    assert one.push(picture(), 0) == Gst.FlowReturn.ERROR
    domain, code, text, debug = only_error(one)
    assert (domain, code) == kind("failed")
    assert "the accelerator has gone" in text
    assert "RuntimeFault" in debug
    assert one.buffers == []


@pytest.mark.parametrize("mode", ["skip", "drop"])
def test_an_exception_of_the_model_ends_a_stream_in_other_modes(playing, picture, model, mode, eventually):
    from posesdk.gst.bindings import Gst

    one = playing(mode=mode)
    model.fail(MemoryError("no room"))
    before = model.runs
    flow = one.push(picture(), 0)
    eventually(lambda: model.runs > before)
    eventually(lambda: flow == Gst.FlowReturn.ERROR or one.push(picture(), 1) == Gst.FlowReturn.ERROR)
    domain, code, text, _ = only_error(one)
    assert (domain, code) == kind("failed")
    assert "no room" in text


def test_an_exception_for_the_last_frame_is_an_error_and_no_silent_end(playing, picture, model):
    from posesdk.gst.bindings import Gst

    one = playing(mode="skip")
    model.hold()
    assert one.push(picture(), 0) == Gst.FlowReturn.OK
    model.wait_until_busy()
    assert one.push(picture(), 1) == Gst.FlowReturn.OK
    model.fail(ValueError("the last one"))
    model.let()
    one.send(Gst.Event.new_eos())
    domain, code, text, _ = only_error(one)
    assert (domain, code) == kind("failed")
    assert "the last one" in text
    assert Gst.EventType.EOS not in [event.type for event in one.events]


def test_a_frame_with_too_few_bytes_is_an_error(playing):
    from posesdk.gst.bindings import Gst

    one = playing(mode="sync")
    short = Gst.Buffer.new_wrapped(bytes(96 * 64 * 3 - 1))
    assert one.source.push(short) == Gst.FlowReturn.ERROR
    domain, code, text, _ = only_error(one)
    assert (domain, code) == kind("failed")
    assert "RGB 96x64" in text
    assert str(96 * 64 * 3) in text


def test_an_exception_of_a_listener_stops_nothing(playing, picture, capfd):
    from posesdk.gst.bindings import Gst

    one = playing(mode="sync")

    def broken(element, pts, text):
        raise RuntimeError("not mine")

    one.element.connect("poses", broken)
    assert one.push(picture(), 0) == Gst.FlowReturn.OK
    assert one.messages(Gst.MessageType.ERROR) == []
    assert "not mine" in capfd.readouterr().err


@pytest.mark.parametrize(
    "text", ["YUY2, width=96, height=64", "RGB, width=8, height=64", "NV12, width=96, height=8193"]
)
def test_formats_that_cannot_be_taken_are_refused_before_the_first_frame(playing, text):
    from posesdk.gst.bindings import Gst

    sink = playing(mode="sync").element.get_static_pad("sink")
    assert sink.query_accept_caps(Gst.Caps.from_string("video/x-raw, format=RGB, width=96, height=64, framerate=30/1"))
    assert not sink.query_accept_caps(Gst.Caps.from_string(f"video/x-raw, format={text}, framerate=30/1"))


def test_an_element_runs_again_after_an_error(playing, picture, model):
    from posesdk.gst.bindings import Gst

    one = playing(mode="sync")
    model.fail(RuntimeError("once"))
    assert one.push(picture(), 0) == Gst.FlowReturn.ERROR
    only_error(one)
    one.stop()
    model.free()
    assert one.start() == Gst.StateChangeReturn.SUCCESS
    assert one.set_format("RGB", 96, 64)
    assert one.push(picture(), 0) == Gst.FlowReturn.OK
