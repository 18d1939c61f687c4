"""A pipeline finds the same people in a film as `Detector.stream` does, where both see the same pixels."""

import json
from collections.abc import Callable, Iterator
from itertools import islice, pairwise

import cv2
import numpy as np
import pytest

from posesdk.detector import Detector
from posesdk.gst import why_unavailable
from posesdk.sources import open_source

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

WITHIN_S = 60
CLOSE_PX = 0.01
FRAMES = 12
FILM = ("data", "videos", "two_children_540p30.mp4")
SAME_MODEL = {"runtime": "onnxruntime", "threads": 1}


@pytest.fixture
def gst():
    import posesdk.gst
    from posesdk.gst.bindings import Gst

    posesdk.gst.register()
    return Gst


@pytest.fixture
def play(gst) -> Iterator[Callable]:
    """`play(text, frames=())`: runs a pipeline to its end, and gives the pixels (H, W, 3) and the poses of each buffer
    that came to the sink `out`; `frames` are pushed into the appsrc `source`.
    """
    from posesdk.gst.bindings import GstVideo
    from posesdk.gst.meta import poses_from_buffer

    pipelines = []

    def run(text, frames=()):
        pipeline, seen = gst.parse_launch(text), []
        pipelines.append(pipeline)

        def keep(pad, info):
            buffer = info.get_buffer()
            seen.append((pixels(buffer, pad.get_current_caps()), poses_from_buffer(buffer)))
            return gst.PadProbeReturn.OK

        pipeline.get_by_name("out").get_static_pad("sink").add_probe(gst.PadProbeType.BUFFER, keep)
        pipeline.set_state(gst.State.PLAYING)
        for index, image in enumerate(frames):
            buffer = gst.Buffer.new_wrapped(image.tobytes())
            buffer.pts = index * gst.SECOND // 30
            pipeline.get_by_name("source").emit("push-buffer", buffer)
        if frames:
            pipeline.get_by_name("source").emit("end-of-stream")
        kinds = gst.MessageType.EOS | gst.MessageType.ERROR
        message = pipeline.get_bus().timed_pop_filtered(WITHIN_S * gst.SECOND, kinds)
        assert message is not None
        assert message.type == gst.MessageType.EOS, message.parse_error()
        return seen

    def pixels(buffer, caps):
        shape = GstVideo.VideoInfo.new_from_caps(caps)
        width, height = shape.width, shape.height
        with buffer.map(gst.MapFlags.READ) as memory:
            rows = np.frombuffer(memory.data, np.uint8).reshape(height, -1)[:, : 3 * width]
            image = rows.reshape(height, width, 3).copy()
        return image if shape.finfo.name == "BGR" else image[..., ::-1]

    yield run
    for pipeline in pipelines:
        pipeline.set_state(gst.State.NULL)


@pytest.fixture
def lossless(tmp_path) -> Callable:
    """`lossless(images)`: an AVI of PNGs, which OpenCV and GStreamer decode to the same pixels."""

    def write(images):
        path, (height, width) = tmp_path / "film.avi", images[0].shape[:2]
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MPNG"), 30, (width, height))
        if not writer.isOpened():
            pytest.skip("this OpenCV does not write PNG into AVI")
        for image in images:
            writer.write(image)
        writer.release()
        return path

    return write


def element(model=None):
    named = f'model="{model}"' if model else ""
    return f"logocappose mode=sync runtime=onnxruntime threads=1 {named}"


def blocks(count, size=(64, 96)):
    rng = np.random.default_rng(7)
    for _ in range(count):
        small = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
        yield small.repeat(8, axis=0).repeat(8, axis=1)


def assert_same(found, wanted):
    """Frame by frame the same people, each keypoint within `CLOSE_PX`."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.image_size == other.image_size
        assert len(one) == len(other)
        np.testing.assert_allclose(one.keypoints, other.keypoints, atol=CLOSE_PX, rtol=0)
        np.testing.assert_allclose(one.keypoint_scores, other.keypoint_scores, atol=1e-4)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
        np.testing.assert_allclose(one.boxes, other.boxes, atol=2 * CLOSE_PX, rtol=0)


def assert_somebody_moves(wanted):
    """Else poses of a wrong frame would pass for the right ones."""
    assert all(len(poses) for poses in wanted)
    assert any(len(a) != len(b) or np.abs(a.keypoints - b.keypoints).max() > 10 * CLOSE_PX for a, b in pairwise(wanted))


@pytest.mark.parametrize("named", [True, False], ids=["BGR", "decoded"])
def test_tiny_model_finds_the_same_in_a_pipeline(play, lossless, every_bundle, named):
    path = lossless(list(blocks(FRAMES)))
    convert = "! videoconvert ! video/x-raw,format=BGR" if named else ""
    seen = play(f'filesrc location="{path}" ! decodebin {convert} ! {element(every_bundle)} ! fakesink name=out')
    with Detector(every_bundle, **SAME_MODEL) as detector:
        wanted = list(detector.stream(path))
    for (image, _), frame in zip(seen, open_source(path), strict=True):
        np.testing.assert_array_equal(image, frame.image)
    assert_somebody_moves(wanted)
    assert_same([poses for _, poses in seen], wanted)


def test_default_model_finds_the_same_in_frames_of_a_film(play, shared):
    """The film is decoded once, by the SDK, and its frames are pushed into the pipeline."""
    path = shared(*FILM)
    frames = [frame.image for frame in islice(open_source(path), FRAMES)]
    height, width = frames[0].shape[:2]
    caps = f"video/x-raw,format=BGR,width={width},height={height},framerate=30/1"
    seen = play(f"appsrc name=source format=time max-bytes=0 caps={caps} ! {element()} ! fakesink name=out", frames)
    with Detector(**SAME_MODEL) as detector:
        wanted = list(islice(detector.stream(path), FRAMES))
    assert_somebody_moves(wanted)
    assert_same([poses for _, poses in seen], wanted)


def test_default_model_finds_the_same_in_a_film_that_each_decodes(play, lossless, shared):
    film = open_source(shared(*FILM))
    path = lossless([frame.image for frame in islice(film, 100, 100 + 5 * FRAMES, 5)])
    seen = play(f'filesrc location="{path}" ! decodebin ! {element()} ! fakesink name=out')
    with Detector(**SAME_MODEL) as detector:
        wanted = list(detector.stream(path))
    for (image, _), frame in zip(seen, open_source(path), strict=True):
        np.testing.assert_array_equal(image, frame.image)
    assert_somebody_moves(wanted)
    assert_same([poses for _, poses in seen], wanted)


def test_json_of_a_pipeline_names_the_people_as_the_detector_does(play, lossless, every_bundle, tmp_path):
    path, out = lossless(list(blocks(FRAMES))), tmp_path / "poses.jsonl"
    play(
        f'filesrc location="{path}" ! decodebin ! {element(every_bundle)} ! tee name=t '
        f't. ! queue ! fakesink name=out t. ! queue ! logocapposejson ! filesink location="{out}"'
    )
    with Detector(every_bundle, **SAME_MODEL) as detector:
        wanted = [poses.to_dict() for poses in detector.stream(path)]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["index"] for line in lines] == [one["index"] for one in wanted]
    for line, one in zip(lines, wanted, strict=True):
        assert (line["width"], line["height"], line["skeleton"]) == (one["width"], one["height"], one["skeleton"])
        assert len(line["persons"]) == len(one["persons"])
        for person, other in zip(line["persons"], one["persons"], strict=True):
            assert set(person) == set(other)
            np.testing.assert_allclose(person["keypoints"], other["keypoints"], atol=CLOSE_PX)
            np.testing.assert_allclose(person["box"], other["box"], atol=2 * CLOSE_PX)


def test_poses_of_the_frame_before_are_told_apart(every_bundle, lossless):
    """What the comparison is worth: shifted by one frame, it fails."""
    with Detector(every_bundle, **SAME_MODEL) as detector:
        wanted = list(detector.stream(lossless(list(blocks(4)))))
    with pytest.raises(AssertionError):
        assert_same(wanted[1:], wanted[:-1])
