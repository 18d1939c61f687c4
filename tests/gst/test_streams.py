"""Files and network streams from end to end: every frame is accounted for, whatever happens on the way."""

import json
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from posesdk.gst import why_unavailable

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

WITHIN_S = 30
FRAMES = 20
SIZE = (160, 120)
VP8 = "vp8enc deadline=1 cpu-used=16 keyframe-max-dist=5"


class Run:
    """A pipeline; `frames` counts what goes into `pose`, `buffers` is what came to `out`: (pts, record or None)."""

    def __init__(self, gst, text):
        self.gst, self.pipeline = gst, gst.parse_launch(text)
        self.buffers, self.frames, self.said = [], 0, []
        self.pose = self.pipeline.get_by_name("pose")
        self.pose.get_static_pad("sink").add_probe(gst.PadProbeType.BUFFER, self._count)
        out = self.pipeline.get_by_name("out")
        if out is not None:
            out.get_static_pad("sink").add_probe(gst.PadProbeType.BUFFER, self._keep)

    def _count(self, pad, info):
        self.frames += 1
        return self.gst.PadProbeReturn.OK

    def _keep(self, pad, info):
        from posesdk.gst.meta import record_from_buffer

        buffer = info.get_buffer()
        self.buffers.append((buffer.pts, record_from_buffer(buffer)))
        return self.gst.PadProbeReturn.OK

    def play(self):
        assert self.pipeline.set_state(self.gst.State.PLAYING) != self.gst.StateChangeReturn.FAILURE, self.until_end()

    def until(self, *kinds):
        """The first message of one of these kinds; those of poses are kept in `said`."""
        wanted = self.gst.MessageType.ELEMENT
        for kind in kinds:
            wanted |= kind
        while True:
            message = self.pipeline.get_bus().timed_pop_filtered(WITHIN_S * self.gst.SECOND, wanted)
            assert message is not None, f"nothing of {kinds} came"
            if message.type in kinds:
                return message
            if message.get_structure().get_name() == "logocappose":
                self.said.append(json.loads(message.get_structure().get_value("json")))

    def until_end(self):
        """Waits for EOS; an error fails the test."""
        message = self.until(self.gst.MessageType.EOS, self.gst.MessageType.ERROR)
        assert message.type == self.gst.MessageType.EOS, message.parse_error()
        return self

    def stop(self):
        assert self.pipeline.set_state(self.gst.State.NULL) == self.gst.StateChangeReturn.SUCCESS

    def link_each_time(self, source, target):
        """Links pads that appear: gst_parse_launch does that once, and not again after a restart."""
        sink = self.pipeline.get_by_name(target).get_static_pad("sink")
        self.pipeline.get_by_name(source).connect("pad-added", lambda _, pad: pad.link(sink))

    @property
    def stats(self):
        return json.loads(self.pose.get_property("stats"))


@pytest.fixture
def launch(gst, converted_bundle) -> Iterator[Callable]:
    """`launch("... ! {pose} mode=sync ! ...")`: a Run; `{pose}` is a logocappose with the tiny model."""
    runs = []
    pose = f'logocappose name=pose model="{converted_bundle}" runtime=onnxruntime threads=1'

    def make(text):
        runs.append(Run(gst, text.replace("{pose}", pose)))
        return runs[-1]

    yield make
    for one in runs:
        one.pipeline.set_state(gst.State.NULL)


@pytest.fixture
def film(gst, tmp_path) -> Callable:
    """`film(name, size)`: a file with `FRAMES` frames of VP8 at 30 fps."""

    def write(name="film.mkv", size=SIZE):
        path = tmp_path / name
        text = f'{picture(size)} ! {VP8} ! matroskamux ! filesink location="{path}"'
        pipeline = gst.parse_launch(text)
        pipeline.set_state(gst.State.PLAYING)
        message = pipeline.get_bus().timed_pop_filtered(WITHIN_S * gst.SECOND, gst.MessageType.EOS)
        pipeline.set_state(gst.State.NULL)
        assert message is not None
        return path

    return write


@pytest.fixture
def camera() -> Iterator:
    """A camera on the network."""
    pytest.importorskip("rtsp_server")
    from gi import require_version

    try:
        require_version("GstRtspServer", "1.0")
    except ValueError:
        pytest.skip("needs GstRtspServer: apt-get install gir1.2-gst-rtsp-server-1.0")
    from rtsp_server import RtspServer

    with RtspServer("--size", f"{SIZE[0]}x{SIZE[1]}") as server:
        yield server


def picture(size=SIZE):
    caps = f"video/x-raw,format=I420,width={size[0]},height={size[1]},framerate=30/1"
    return f"videotestsrc num-buffers={FRAMES} pattern=ball ! {caps}"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_frame_of_a_file_has_its_own_poses(launch, film, tmp_path):
    out = tmp_path / "poses.jsonl"
    run = launch(
        f'filesrc location="{film()}" ! decodebin ! videoconvert ! {{pose}} mode=sync ! tee name=t '
        f't. ! queue ! logocapposejson ! filesink location="{out}" t. ! queue ! fakesink name=out sync=false'
    )
    run.play()
    run.until_end()
    assert (run.frames, len(run.buffers), len(lines(out))) == (FRAMES, FRAMES, FRAMES)
    assert [line["index"] for line in lines(out)] == list(range(FRAMES))
    assert all(record.fresh and record.pts_ns == pts for pts, record in run.buffers)
    assert run.stats["inferred"] == run.stats["frames"] == FRAMES


@pytest.mark.parametrize(
    ("encoder", "muxer", "name"),
    [(VP8, "matroskamux", "out.mkv"), ("openh264enc ! h264parse", "mp4mux", "out.mp4")],
    ids=["mkv", "mp4"],
)
def test_recorded_film_and_json_have_the_same_frames(gst, launch, film, tmp_path, encoder, muxer, name):
    if gst.ElementFactory.find(encoder.split()[0]) is None:
        pytest.skip(f"needs {encoder.split()[0]}")
    movie, out = tmp_path / name, tmp_path / "poses.jsonl"
    run = launch(
        f'filesrc location="{film()}" ! decodebin ! videoconvert ! {{pose}} mode=sync draw=true ! tee name=t '
        f't. ! queue ! videoconvert ! {encoder} ! {muxer} ! filesink location="{movie}" '
        f't. ! queue ! logocapposejson ! filesink location="{out}"'
    )
    run.play()
    run.until_end()
    run.stop()
    capture, count = cv2.VideoCapture(str(movie)), 0
    while capture.read()[0]:
        count += 1
    assert (count, len(lines(out))) == (FRAMES, FRAMES)


def test_interval_infers_one_frame_of_three_and_labels_the_others(launch, film):
    run = launch(
        f'filesrc location="{film()}" ! decodebin ! videoconvert ! {{pose}} mode=sync interval=3 messages=true ! '
        "fakesink name=out sync=false"
    )
    run.play()
    run.until_end()
    assert [record.fresh for _, record in run.buffers] == [index % 3 == 0 for index in range(FRAMES)]
    assert [record.index for _, record in run.buffers] == [index - index % 3 for index in range(FRAMES)]
    assert all(record.age_ns == pts - record.pts_ns for pts, record in run.buffers)
    assert [said["index"] for said in run.said] == list(range(0, FRAMES, 3))


def test_skip_tells_of_every_inference_before_the_end(launch, film):
    run = launch(
        f'filesrc location="{film()}" ! decodebin ! videoconvert ! {{pose}} mode=skip messages=true ! '
        "fakesink name=out sync=false"
    )
    run.play()
    run.until_end()
    stats = run.stats
    assert len(run.buffers) == run.frames == FRAMES
    assert len(run.said) == stats["inferred"] >= 1
    assert stats["inferred"] + stats["skipped"] == FRAMES
    assert run.said[-1]["index"] == FRAMES - 1


def test_stream_goes_on_with_a_second_file_of_another_size(launch, film):
    first, second = film("first.mkv", (160, 120)), film("second.mkv", (128, 192))
    run = launch(
        f"concat name=both ! videoconvert ! {{pose}} mode=sync ! fakesink name=out sync=false "
        f'filesrc location="{first}" ! matroskademux ! vp8dec ! both. '
        f'filesrc location="{second}" ! matroskademux ! vp8dec ! both.'
    )
    run.play()
    run.until_end()
    sizes = [(record.width, record.height) for _, record in run.buffers]
    assert sizes == [(160, 120)] * FRAMES + [(128, 192)] * FRAMES
    assert all(record.fresh for _, record in run.buffers)


@pytest.mark.parametrize("coded", ["", f"{VP8} ! vp8dec !"], ids=["raw", "vp8"])
@pytest.mark.parametrize("mode", ["sync", "skip"])
def test_size_changes_in_the_middle_of_a_stream(gst, launch, coded, mode):
    run = launch(f"appsrc name=source format=time ! {coded} {{pose}} mode={mode} ! fakesink name=out sync=false")
    run.play()
    source = run.pipeline.get_by_name("source")
    sizes = [(160, 120)] * 6 + [(128, 192)] * 6 + [(64, 64)] * 6
    for index, (width, height) in enumerate(sizes):
        caps = gst.Caps(f"video/x-raw,format=I420,width={width},height={height},framerate=30/1")
        buffer = gst.Buffer.new_wrapped(bytes([100 + 5 * index]) * (width * height * 3 // 2))
        buffer.pts, buffer.duration = index * gst.SECOND // 30, gst.SECOND // 30
        source.emit("push-sample", gst.Sample.new(buffer, caps, None, None))
    source.emit("end-of-stream")
    run.until_end()
    assert len(run.buffers) == run.frames == len(sizes)
    for (_, record), size in zip(run.buffers, sizes, strict=True):
        assert record is None or (record.width, record.height) == size  # never poses of a frame of another size
    if mode == "sync":
        assert all(record.fresh for _, record in run.buffers)


def test_seek_in_a_file_gives_each_frame_its_own_poses_again(gst, launch, film):
    run = launch(
        f'filesrc location="{film()}" ! decodebin ! videoconvert ! {{pose}} mode=sync ! fakesink name=out sync=false'
    )
    run.pipeline.set_state(gst.State.PAUSED)
    assert run.pipeline.get_state(WITHIN_S * gst.SECOND)[0] == gst.StateChangeReturn.SUCCESS
    before = len(run.buffers)
    assert run.pipeline.seek_simple(gst.Format.TIME, gst.SeekFlags.FLUSH | gst.SeekFlags.ACCURATE, 0)
    run.play()
    run.until_end()
    after = run.buffers[-FRAMES:]
    assert len(run.buffers) == before + FRAMES
    assert [pts for pts, _ in after] == sorted(pts for pts, _ in after)
    assert all(record.fresh and record.pts_ns == pts for pts, record in after)


def test_pipeline_runs_again_after_its_end(launch):
    run = launch(f"{picture()} ! {{pose}} mode=sync ! fakesink name=out sync=false")
    for _ in range(2):
        run.play()
        run.until_end()
        assert run.stats["inferred"] == FRAMES
        run.stop()
    assert len(run.buffers) == 2 * FRAMES


def test_pipeline_runs_again_after_an_error_upstream(gst, launch):
    run = launch(f"{picture()} ! identity name=wire error-after=6 ! {{pose}} mode=skip ! fakesink name=out sync=false")
    run.play()
    error, _ = run.until(gst.MessageType.ERROR).parse_error()
    assert "Failed after iterations" in error.message
    run.stop()
    assert len(run.buffers) == run.stats["frames"] == 5
    run.pipeline.get_by_name("wire").set_property("error-after", -1)
    run.play()
    run.until_end()
    assert run.stats["frames"] == FRAMES


def test_network_camera_is_live_and_every_frame_of_it_goes_through(launch, camera):
    run = launch(
        f"rtspsrc location={camera.url} protocols=tcp latency=50 ! decodebin ! videoconvert ! {{pose}} ! "
        "identity eos-after=25 ! fakesink name=out sync=false"
    )
    run.play()
    run.until_end()
    stats = run.stats
    assert stats["mode"] == "skip"
    assert len(run.buffers) == 24  # identity ends in place of the 25th
    assert run.frames == stats["frames"] >= 24
    assert stats["inferred"] >= 1
    assert any(record is not None for _, record in run.buffers)
    pts = [pts for pts, _ in run.buffers]
    assert pts == sorted(set(pts))


def test_camera_that_dies_and_comes_back_is_seen_again(gst, launch, camera):
    run = launch(
        f"rtspsrc name=camera location={camera.url} protocols=tcp latency=50 rtpvp8depay name=depay ! vp8dec ! "
        "{pose} mode=skip ! identity name=wire ! fakesink name=out sync=false"
    )
    run.link_each_time("camera", "depay")
    died = []

    def pull_the_cable(wire, buffer):
        if len(run.buffers) == 10 and not died:
            died.append(True)
            camera.stop()

    wire = run.pipeline.get_by_name("wire")
    wire.connect("handoff", pull_the_cable)
    run.play()
    run.until(gst.MessageType.EOS, gst.MessageType.ERROR)
    run.stop()
    before = len(run.buffers)
    assert died
    assert run.stats["frames"] == run.frames >= before >= 10

    camera.start()
    wire.set_property("eos-after", 20)
    run.play()
    run.until_end()
    again = run.buffers[before:]
    assert len(again) == 19
    assert any(record is not None for _, record in again)
    assert run.stats["frames"] >= 19


def test_camera_that_is_not_there_ends_the_start_with_an_error(gst, launch, camera):
    camera.stop()
    run = launch(
        f"rtspsrc location={camera.url} protocols=tcp ! decodebin ! videoconvert ! {{pose}} ! fakesink name=out"
    )
    run.play()
    error, _ = run.until(gst.MessageType.ERROR, gst.MessageType.EOS).parse_error()
    assert error.matches(gst.ResourceError.quark(), gst.ResourceError.OPEN_READ_WRITE)
    run.stop()


def test_frames_of_many_sizes_need_no_more_than_their_planes(gst, launch):
    """Odd sides: the chroma planes are rounded up, and rows to four bytes."""
    for size in ((33, 47), (161, 99)):
        caps = f"video/x-raw,format=I420,width={size[0]},height={size[1]},framerate=30/1"
        run = launch(f"videotestsrc num-buffers=3 ! {caps} ! {{pose}} mode=sync draw=true ! fakesink name=out")
        run.play()
        run.until_end()
        assert [(record.width, record.height) for _, record in run.buffers] == [size] * 3
        assert all(np.isfinite(record.keypoints).all() for _, record in run.buffers)
        run.stop()
