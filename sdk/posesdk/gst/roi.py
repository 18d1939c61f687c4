"""People as regions of interest, each with its keypoints as the parameter that DL Streamer's elements read."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from posesdk.gst.bindings import GLib, Gst, GstVideo
from posesdk.gst.record import FORMAT_PREFIX, PIXEL_DECIMALS, PoseRecord
from posesdk.skeleton import Skeleton

__all__ = ["PERSON", "add_regions", "pixel_boxes", "pixel_keypoints"]

PERSON = "person"
"""The label of every region."""

PARAMETER = "keypoints"
FLOAT32, ANY_LAYOUT = 10, 0
"""DL Streamer's numbers for the precision and the layout of a tensor."""

Integers = NDArray[np.int64]


def pixel_boxes(record: PoseRecord) -> Integers:
    """(N, 4) x, y, width, height in whole pixels: each person's box rounded outwards, its part inside of the frame.

    The width or height of somebody outside of the frame is 0.
    """
    limits = np.array([record.width, record.height])
    points = (record.keypoints[..., :2] * limits.astype(np.float64)).round(PIXEL_DECIMALS)
    least, most = points.min(axis=1), points.max(axis=1)
    low = np.clip(np.floor(least).astype(np.int64), 0, limits)
    high = np.clip(np.ceil(most).astype(np.int64), 0, limits)
    return np.concatenate([low, high - low], axis=1)


def pixel_keypoints(record: PoseRecord) -> Integers:
    """(N, K, 2) the pixel in which each keypoint lies; it may be outside of the frame."""
    places = record.keypoints[..., :2] * np.array([record.width, record.height], np.float64)
    return np.floor(places.round(PIXEL_DECIMALS)).astype(np.int64)


def add_regions(buffer: Gst.Buffer, record: PoseRecord, ids: list[int | None]) -> None:
    """Adds a region per person who is at least partly inside of the frame; `ids` (N) are their ids, None for none."""
    for person, (x, y, width, height) in enumerate(pixel_boxes(record).tolist()):
        if width == 0 or height == 0:
            continue
        region = GstVideo.buffer_add_video_region_of_interest_meta(buffer, PERSON, x, y, width, height)
        if (known := ids[person]) is not None:
            region.id = known
        region.add_param(_keypoints(record, person, (x, y, width, height)))


def _keypoints(record: PoseRecord, person: int, box: tuple[int, int, int, int]) -> Gst.Structure:
    """x and y in parts of the region, float32 (K, 2), and a score for each."""
    points = record.keypoints[person, :, :2] * np.array([record.width, record.height], np.float64)
    places = ((points - box[:2]) / box[2:]).astype(np.float32)
    scores = ", ".join(f"(float){score}" for score in record.keypoints[person, :, 2].tolist())
    text = f"{_constant(record.own_skeleton)}, confidence=< {scores} >"
    structure, _ = Gst.Structure.from_string(text)
    if record.model:
        structure.set_value("model_name", record.model)
    data = GLib.Bytes.new(places.tobytes())
    structure.set_value("data_buffer", GLib.Variant.new_from_bytes(GLib.VariantType("ay"), data, True))
    return structure


@lru_cache(maxsize=8)
def _constant(skeleton: Skeleton) -> str:
    """The fields that are the same for every person, as GStreamer spells a structure: it gives arrays their types."""
    names = ", ".join(f"(string){_quoted(_side_last(name))}" for name in skeleton.keypoints)
    links = ", ".join(f"(uint){index}" for edge in skeleton.edges for index in edge)
    return (
        f"{PARAMETER}, type=(string){PARAMETER}, format=(string){_quoted(FORMAT_PREFIX + skeleton.name)}, "
        f"precision=(int){FLOAT32}, layout=(int){ANY_LAYOUT}, dims=< (uint){len(skeleton)}, (uint)2 >, "
        f"point_names=< {names} >, point_connections=< {links} >"
    )


def _side_last(name: str) -> str:
    """DL Streamer's name of a point: "eye_l" for "left_eye"."""
    side, _, part = name.partition("_")
    return f"{part}_{side[0]}" if part and side in ("left", "right") else name


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
