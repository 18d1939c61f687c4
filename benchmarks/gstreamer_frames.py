"""How long the pixels of a 720p buffer take, and how right their colors are; print two tables.

    python benchmarks/gstreamer_frames.py [--runs 200] [--video FILE]

Times are the least in ms of one thread, as other programs on the machine only add to them: to BGR, drawing six people
in place, and what GStreamer's videoconvert takes to make BGR (it passes BGR on). Colors are those of the first frame of
the video as NV12 with each colorimetry, in steps of 255 from the formula of the standard, mean and largest: `to_bgr`,
videoconvert with the same nearest chroma, and OpenCV's own conversion, which knows one colorimetry.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gst_measure.conditions import conditions, sentence
from posesdk.gst.bindings import Gst, GstVideo
from posesdk.gst.frames import draw_on, plane_views, to_bgr
from posesdk.gst.layout import FORMATS, Layout, layout_of
from posesdk.poses import Poses

VIDEOS = Path(__file__).resolve().parents[2] / "shared/data/videos"
WIDTH, HEIGHT, PEOPLE = 1280, 720, 6
COLORIMETRIES = {"bt601": "BT.601", "bt709": "BT.709", "1:4:0:0": "BT.601 full", "1:3:5:1": "BT.709 full"}
PATIENCE_S = 20
FIGURE = np.array(
    [
        *((0, 0), (4, -4), (-4, -4), (9, -2), (-9, -2)),
        *((18, 22), (-18, 22), (26, 50), (-26, 50), (30, 76), (-30, 76)),
        *((11, 80), (-11, 80), (12, 125), (-12, 125), (13, 170), (-13, 170)),
    ]
)
"""COCO's keypoints of somebody who stands."""
FIGURE_SCALE = 2.3
"""Pixels per unit of the figure, which is then 400 pixels high."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--video", type=Path, default=VIDEOS / "group_exercise_720p25.mp4")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    found, picture = cv2.VideoCapture(str(options.video)).read()
    if not found:
        raise SystemExit(f"cannot read {options.video}")
    picture = cv2.resize(picture, (WIDTH, HEIGHT))
    print(sentence(conditions()))
    print(f"\n| {WIDTH}x{HEIGHT} | to_bgr | draw_on, {PEOPLE} people | videoconvert |\n|---|---|---|---|")
    for name in FORMATS:
        times = (f"{value:.2f}" for value in format_times(name, picture, options.runs))
        print(f"| {name} | {' | '.join(times)} |")
    print("\n| NV12 | to_bgr | videoconvert | cv2 |\n|---|---|---|---|")
    for colorimetry, title in COLORIMETRIES.items():
        errors = (f"{np.mean(error):.2f}, {np.max(error):.0f}" for error in color_errors(colorimetry, picture))
        print(f"| {title} | {' | '.join(errors)} |")


def format_times(name: str, picture: NDArray[np.uint8], runs: int) -> tuple[float, float, float]:
    caps = caps_of(name)
    data = np.frombuffer(converted(picture.tobytes(), caps_of("BGR"), caps), np.uint8).copy()
    layout = layout_from(data.tobytes(), caps)
    people = some_people()
    return (
        least_ms(lambda: to_bgr(data, layout), runs),
        least_ms(lambda: draw_on(data, layout, people), runs),
        converter_ms(caps, runs),
    )


def least_ms(work: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return min(times)


def converter_ms(caps: str, runs: int) -> float:
    """From a buffer's arrival at videoconvert to its departure."""
    source = f"videotestsrc num-buffers={runs} ! {caps} ! identity name=before"
    pipeline = Gst.parse_launch(f"{source} ! videoconvert n-threads=1 ! {caps_of('BGR')} ! fakesink name=after")
    starts: list[float] = []
    times: list[float] = []
    mark(pipeline.get_by_name("before").get_static_pad("src"), lambda: starts.append(time.perf_counter()))
    mark(
        pipeline.get_by_name("after").get_static_pad("sink"),
        lambda: times.append(1000 * (time.perf_counter() - starts[-1])),
    )
    pipeline.set_state(Gst.State.PLAYING)
    pipeline.get_bus().timed_pop_filtered(PATIENCE_S * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
    pipeline.set_state(Gst.State.NULL)
    return min(times)


def mark(pad: Any, action: Callable[[], object]) -> None:
    def probe(pad: Any, info: Any) -> Any:
        action()
        return Gst.PadProbeReturn.OK

    pad.add_probe(Gst.PadProbeType.BUFFER, probe)


def color_errors(colorimetry: str, picture: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """Of to_bgr, of videoconvert and of OpenCV's own conversion: distances from the formula."""
    caps = caps_of("NV12") + f",colorimetry={colorimetry}"
    data = converted(picture.tobytes(), caps_of("BGR"), caps)
    layout = layout_from(data, caps)
    expected = by_formula(data, layout)
    gst = np.frombuffer(converted(data, caps, caps_of("BGR"), "chroma-mode=none"), np.uint8)
    planes = plane_views(data, layout)
    own = cv2.cvtColorTwoPlane(planes[0], planes[1], cv2.COLOR_YUV2BGR_NV12)
    pictures = (to_bgr(data, layout), gst.reshape(expected.shape), np.asarray(own))
    return [np.abs(one - expected) for one in pictures]


def by_formula(data: bytes, layout: Layout) -> NDArray[np.float64]:
    low, luma_steps, chroma_steps = (0, 255, 255) if layout.full_range else (16, 219, 224)
    planes = plane_views(data, layout)
    luma = (planes[0].astype(float) - low) / luma_steps
    pb, pr = np.moveaxis((planes[1].repeat(2, axis=0).repeat(2, axis=1).astype(float) - 128) / chroma_steps, 2, 0)
    of_red, of_blue = layout.luma
    blue, red = luma + 2 * (1 - of_blue) * pb, luma + 2 * (1 - of_red) * pr
    green = (luma - of_red * red - of_blue * blue) / (1 - of_red - of_blue)
    return np.clip(255 * np.stack([blue, green, red], axis=2), 0, 255)


def converted(data: bytes, caps: str, wanted: str, settings: str = "") -> bytes:
    """A frame in other caps, by videoconvert."""
    pipeline = Gst.parse_launch(f"appsrc name=in ! videoconvert {settings} ! {wanted} ! appsink name=out sync=false")
    source, sink = pipeline.get_by_name("in"), pipeline.get_by_name("out")
    source.set_property("caps", Gst.Caps.from_string(caps))
    pipeline.set_state(Gst.State.PLAYING)
    source.emit("push-buffer", Gst.Buffer.new_wrapped(data))
    source.emit("end-of-stream")
    sample = sink.emit("try-pull-sample", PATIENCE_S * Gst.SECOND)
    result: bytes = sample.get_buffer().extract_dup(0, sample.get_buffer().get_size())
    pipeline.set_state(Gst.State.NULL)
    return result


def layout_from(data: bytes, caps: str) -> Layout:
    return layout_of(Gst.Buffer.new_wrapped(data), GstVideo.VideoInfo.new_from_caps(Gst.Caps.from_string(caps)))


def caps_of(name: str) -> str:
    return f"video/x-raw,format={name},width={WIDTH},height={HEIGHT},framerate=30/1"


def some_people() -> Poses:
    """Side by side, each 400 pixels high."""
    centers = np.stack([np.linspace(120, WIDTH - 120, PEOPLE), np.full(PEOPLE, 160)], axis=1)
    ones = np.ones((PEOPLE, 17), np.float32)
    points = (centers[:, None] + FIGURE_SCALE * FIGURE).astype(np.float32)
    return Poses(keypoints=points, keypoint_scores=ones, scores=ones[:, 0], image_size=(HEIGHT, WIDTH))


if __name__ == "__main__":
    main()
