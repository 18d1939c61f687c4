"""Poses on buffers: writes and reads `LogocapPoseMeta`, a `GstCustomMeta` without tags.

Without tags, it stays on a buffer through conversion, scaling, encoding and decoding. Its fields, version 1:

    version             int      1
    format              string   "body-pose/" and the skeleton's name: "body-pose/coco-17"
    skeleton            string   JSON of a skeleton that the SDK does not know by its name; else absent
    source              string   the stream's name; absent where it has none
    index               uint64   running number of the inferred frame
    pts, age            uint64   ns; time stamp of the inferred frame (GST_CLOCK_TIME_NONE: unknown), its age
    fresh               boolean  whether this very frame was inferred
    width, height       int      the inferred frame, in pixels
    num-persons         int      N
    num-keypoints       int      K
    keypoints           GBytes   float32 (N, K, 3): x and y in parts of the frame, score
    scores              GBytes   float32 (N,), descending
    boxes               GBytes   float32 (N, 4): x, y, width, height in parts of the frame
    track-ids           GBytes   int64 (N,); absent where nobody is tracked
    model, runtime      string
    keypoint-threshold  double   keypoints of a smaller score are not to be drawn
    timing              string   JSON, milliseconds per stage
    infer-ms            double   their sum

The pixel of a place is x * width - 0.5, where (0, 0) is the center of the top-left pixel.
"""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posesdk.gst.analytics import add_detections
from posesdk.gst.bindings import GLib, GObject, Gst
from posesdk.gst.native import library
from posesdk.gst.record import FORMAT_PREFIX, PoseRecord
from posesdk.gst.roi import add_regions
from posesdk.poses import Poses
from posesdk.skeleton import Skeleton

__all__ = ["META_NAME", "META_VERSION", "attach_record", "poses_from_buffer", "record_from_buffer"]

META_NAME = "LogocapPoseMeta"
META_VERSION = 1


def attach_record(buffer: Gst.Buffer, record: PoseRecord, kinds: frozenset[str]) -> None:
    """Puts the poses on a writable buffer as each of `kinds`: "custom", "roi", "analytics".

    "custom" takes the place of poses that the buffer has already; the other two add to what other elements attached,
    and a region has the id of its person's detection. ValueError for a buffer that is not writable.
    """
    if not library().gst_mini_object_is_writable(hash(buffer)):
        raise ValueError("expected a writable buffer to attach poses to; call make_writable() first")
    if "custom" in kinds:
        _write(buffer, record)
    ids: list[int | None] = [None] * len(record.scores)
    if "analytics" in kinds:
        ids = add_detections(buffer, record)
    if "roi" in kinds:
        add_regions(buffer, record, ids)


def record_from_buffer(buffer: Gst.Buffer) -> PoseRecord | None:
    """What a buffer carries, None where it has no poses. ValueError for a meta of another version, or a damaged one."""
    meta = buffer.get_custom_meta(META_NAME)
    if meta is None:
        return None
    get = meta.get_structure().get_value
    if get("version") != META_VERSION:
        raise ValueError(
            f"reading {META_NAME}: expected version {META_VERSION}, got {get('version')!r}; update posesdk, or the "
            "element that wrote it"
        )
    try:
        return _read(get)
    except (AttributeError, TypeError, ValueError) as error:  # None has no data, no length, no parts
        raise ValueError(f"reading {META_NAME}: a field is missing or damaged: {error}") from error


def poses_from_buffer(buffer: Gst.Buffer, skeleton: Skeleton | None = None) -> Poses | None:
    """The poses that a buffer carries, in pixels of the inferred frame; None where it has none.

    The skeleton is the one that the meta names. ValueError for a given one that is another, and for a damaged meta.
    """
    record = record_from_buffer(buffer)
    return None if record is None else record.to_poses(skeleton)


def _write(buffer: Gst.Buffer, record: PoseRecord) -> None:
    """Through C: in Python the structure of a meta is a copy, and what is set in it is lost."""
    native, address = library(), hash(buffer)
    while old := native.gst_buffer_get_custom_meta(address, META_NAME.encode()):
        native.gst_buffer_remove_meta(address, old)
    meta = native.gst_buffer_add_custom_meta(address, META_NAME.encode())
    structure = native.gst_custom_meta_get_structure(meta)
    for name, gtype, value in _fields(record):
        boxed = GObject.Value(gtype, value)  # lives until C has copied it
        native.gst_structure_set_value(structure, name, hash(boxed))


def _fields(record: PoseRecord) -> list[tuple[bytes, Any, Any]]:
    pts = Gst.CLOCK_TIME_NONE if record.pts_ns is None else record.pts_ns
    persons, keypoints = record.keypoints.shape[:2]
    bytes_type = GLib.Bytes.__gtype__
    fields = [
        (b"version", GObject.TYPE_INT, META_VERSION),
        (b"format", GObject.TYPE_STRING, FORMAT_PREFIX + record.skeleton),
        (b"index", GObject.TYPE_UINT64, record.index),
        (b"pts", GObject.TYPE_UINT64, pts),
        (b"age", GObject.TYPE_UINT64, record.age_ns),
        (b"fresh", GObject.TYPE_BOOLEAN, record.fresh),
        (b"width", GObject.TYPE_INT, record.width),
        (b"height", GObject.TYPE_INT, record.height),
        (b"num-persons", GObject.TYPE_INT, persons),
        (b"num-keypoints", GObject.TYPE_INT, keypoints),
        (b"keypoints", bytes_type, GLib.Bytes.new(record.keypoints.tobytes())),
        (b"scores", bytes_type, GLib.Bytes.new(record.scores.tobytes())),
        (b"boxes", bytes_type, GLib.Bytes.new(record.boxes.tobytes())),
        (b"model", GObject.TYPE_STRING, record.model),
        (b"runtime", GObject.TYPE_STRING, record.runtime),
        (b"keypoint-threshold", GObject.TYPE_DOUBLE, record.keypoint_threshold),
        (b"timing", GObject.TYPE_STRING, json.dumps(dict(record.timing))),
        (b"infer-ms", GObject.TYPE_DOUBLE, record.infer_ms),
    ]
    if record.source is not None:
        fields.append((b"source", GObject.TYPE_STRING, record.source))
    if record.definition is not None:
        fields.append((b"skeleton", GObject.TYPE_STRING, _skeleton_json(record.definition)))
    if record.track_ids is not None:
        fields.append((b"track-ids", bytes_type, GLib.Bytes.new(record.track_ids.tobytes())))
    return fields


def _read(get: Callable[[str], Any]) -> PoseRecord:
    count, joints = get("num-persons"), get("num-keypoints")
    definition, ids, pts = get("skeleton"), get("track-ids"), get("pts")
    return PoseRecord(
        keypoints=_array(get("keypoints"), np.float32).reshape(count, joints, 3),
        scores=_array(get("scores"), np.float32),
        width=get("width"),
        height=get("height"),
        skeleton=get("format").removeprefix(FORMAT_PREFIX),
        definition=None if definition is None else _skeleton(definition),
        pts_ns=None if pts == Gst.CLOCK_TIME_NONE else pts,
        age_ns=get("age"),
        fresh=get("fresh"),
        source=get("source"),
        index=get("index"),
        model=get("model"),
        runtime=get("runtime"),
        keypoint_threshold=get("keypoint-threshold"),
        track_ids=None if ids is None else _array(ids, np.int64),
        timing=json.loads(get("timing")),
        infer_ms=get("infer-ms"),
    )


def _array(values: GLib.Bytes, kind: type[np.generic]) -> NDArray[Any]:
    return np.frombuffer(values.get_data() or b"", kind)


@lru_cache(maxsize=8)
def _skeleton_json(skeleton: Skeleton) -> str:
    return skeleton.model_dump_json()


@lru_cache(maxsize=8)
def _skeleton(text: str) -> Skeleton:
    return Skeleton.model_validate_json(text)


def _register() -> None:
    """Makes the meta's name known to GStreamer, which warns of a second time, as of asking for an unknown name."""
    if Gst.Meta.get_info(META_NAME) is None:
        Gst.Meta.register_custom(META_NAME, [], None, None)


_register()  # once per process, under the lock of this module's import, before anybody can read or write
