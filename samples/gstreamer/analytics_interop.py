"""Poses for other people's elements: reads people as GStreamer's own metadata, and compares them with the JSON.

    python samples/gstreamer/analytics_interop.py video.mp4

A probe behind `logocappose attach=all` reads every frame three times, and writes a JSON line of what it found:
"regions", GstVideoRegionOfInterestMeta as a C element sees it (any GStreamer); "detections", GstAnalytics' object
detections (1.24 and later), and "keypoints" of GstAnalytics (1.30 and later); "persons", how many LogocapPoseMeta
holds. Boxes are x, y, width, height in whole pixels. The exit status is 0 if all say the same as the element's JSON.
"""

import argparse
import ctypes
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posesdk.gst import register, why_unavailable

if reason := why_unavailable():
    sys.exit(f"GStreamer cannot run here: {reason}")
from posesdk.gst import analytics
from posesdk.gst.bindings import Gst, GstVideo
from posesdk.gst.launch import LaunchOptions, launch, parse_pipeline
from posesdk.gst.meta import poses_from_buffer

Box = list[int]


class Region(ctypes.Structure):
    """GstVideoRegionOfInterestMeta of gst/video/gstvideometa.h; its parameter "keypoints" is for DL Streamer."""

    _fields_ = (
        ("flags", ctypes.c_int),
        ("info", ctypes.c_void_p),
        ("roi_type", ctypes.c_uint32),
        ("id", ctypes.c_int),
        ("parent_id", ctypes.c_int),
        ("box", ctypes.c_uint * 4),
        ("params", ctypes.c_void_p),
    )


def regions(buffer: Gst.Buffer) -> Iterator[Box]:
    """All regions of a buffer; through C, as PyGObject finds one only by its id, and before 1.24 all have id 0."""
    step = ctypes.CDLL("libgstreamer-1.0.so.0").gst_buffer_iterate_meta_filtered
    step.restype, step.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    state, kind = ctypes.c_void_p(), hash(GstVideo.video_region_of_interest_meta_api_get_type())
    while address := step(hash(buffer), ctypes.byref(state), kind):
        yield list(Region.from_address(address).box)


def detections(buffer: Gst.Buffer) -> tuple[list[Box], list[list[int]]]:
    """The boxes of GstAnalytics, and the places x, y of its keypoints, person after person (from 1.30 on)."""
    from gi.repository import GstAnalytics

    relations = GstAnalytics.buffer_get_analytics_relation_meta(buffer)
    boxes: list[Box] = []
    keypoints: list[list[int]] = []
    for number in range(GstAnalytics.relation_get_length(relations) if relations else 0):
        found, detection = relations.get_od_mtd(number)
        if found:
            boxes.append(list(detection.get_location())[1:5])
        if hasattr(relations, "get_keypoint_mtd"):
            found, keypoint = relations.get_keypoint_mtd(number)
            if found:
                keypoints.append(list(keypoint.get_position())[1:3])
    return boxes, keypoints


def whole(data: dict[str, Any]) -> list[Box]:
    """What metadata of whole pixels must say of a line of JSON: boxes rounded outwards, their part in the frame.

    In the JSON (0, 0) is the center of the first pixel, which in metadata reaches from 0 to 1.
    """
    sides, boxes = (data["width"], data["height"]), []
    for person in data["persons"]:
        least, most = (
            [min(max(rounded(round(place + 0.5, 3)), 0), side) for place, side in zip(corner, sides, strict=True)]
            for corner, rounded in ((person["box"][:2], math.floor), (person["box"][2:], math.ceil))
        )
        boxes.append([*least, *(high - low for low, high in zip(least, most, strict=True))])
    return [box for box in boxes if box[2] and box[3]]  # nobody outside of the frame


class Comparison:
    """What the readers of all frames found."""

    def __init__(self) -> None:
        self.missing = analytics.why_unavailable()
        self.frames = self.people = self.keypoints = self.wrong = 0
        self._data: dict[str, Any] = {}

    def heard(self, _element: Gst.Element, _pts: int, line: str) -> None:
        """The JSON of a frame, before the frame itself comes: the pipeline runs in mode sync."""
        self._data = json.loads(line)

    def saw(self, _pad: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        buffer, data = info.get_buffer(), self._data
        poses, expected = poses_from_buffer(buffer), whole(data)
        report: dict[str, Any] = {"index": data["index"], "persons": len(poses) if poses else 0}
        report["regions"] = list(regions(buffer))
        right = poses is not None and poses.to_dict()["persons"] == data["persons"] and report["regions"] == expected
        if self.missing is None:
            report["detections"], report["keypoints"] = detections(buffer)
            right = right and report["detections"] == expected
            self.keypoints += len(report["keypoints"])
        print(json.dumps(report), flush=True)
        self.frames += 1
        self.people += len(expected)
        self.wrong += not right
        return Gst.PadProbeReturn.OK

    def summary(self) -> str:
        readers = ["LogocapPoseMeta", "regions of interest"] + ["GstAnalytics"] * (self.missing is None)
        lines = [f"{self.frames} frames, {self.people} people; read as {', '.join(readers)}"]
        if self.missing is not None:
            lines.append(f"no GstAnalytics: {self.missing}")
        elif not self.keypoints and self.people:
            lines.append(f"no keypoints in GstAnalytics: {Gst.version_string()} is older than 1.30, which brings them")
        return "\n".join([*lines, f"{self.wrong} frames differ from the JSON" if self.wrong else "all equal the JSON"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, help="a video file")
    parser.add_argument("--model", default="", help="bundle or name of a model [the default model]")
    options = parser.parse_args()
    if not options.video.is_file():
        parser.error(f"{options.video}: no such file")
    register()
    pipeline = parse_pipeline(
        [
            f'uridecodebin uri="{options.video.resolve().as_uri()}" ! videoconvert ! '
            "logocappose name=poses mode=sync attach=all ! fakesink name=end sync=false"
        ]
    )
    comparison = Comparison()
    pipeline.get_by_name("poses").set_property("model", options.model)
    pipeline.get_by_name("poses").connect("poses", comparison.heard)
    pipeline.get_by_name("end").get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, comparison.saw)
    code = launch(pipeline, LaunchOptions(quiet=True))
    print(comparison.summary(), file=sys.stderr)
    return code or int(comparison.wrong > 0 or comparison.frames == 0)


if __name__ == "__main__":
    sys.exit(main())
