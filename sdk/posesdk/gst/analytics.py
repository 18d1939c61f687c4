"""People in GStreamer's own analytics metadata: detections from 1.24 on, keypoint groups from 1.30 on.

What a GStreamer offers is found by looking, not by its version.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from posesdk.gst.bindings import GLib, Gst
from posesdk.gst.record import FORMAT_PREFIX, PoseRecord
from posesdk.gst.roi import PERSON, pixel_boxes, pixel_keypoints

__all__ = ["add_detections", "why_unavailable"]

ARRIVED = (1, 24)
"""The GStreamer that brought the metadata."""

DIMENSIONS = 2
UNKNOWN, VISIBLE = 0, 1
"""GstAnalyticsKeypointVisibility."""


def why_unavailable() -> str | None:
    """None where this GStreamer has analytics metadata, else the reason, and the remedy where there is one."""
    if isinstance(found := _namespace(), str):
        return found
    return None


def add_detections(buffer: Gst.Buffer, record: PoseRecord) -> list[int | None]:
    """Adds a detection per person who is at least partly inside of the frame, and its keypoints where that is possible.

    The detection contains a group with tag "<model>/body-pose/<skeleton>", as DL Streamer makes them. Gives the ids of
    the detections (N), None for somebody outside of the frame. RuntimeError where there is no analytics metadata.
    """
    namespace = _namespace()
    if isinstance(namespace, str):
        raise RuntimeError(f"attaching analytics metadata: {namespace}")
    relations = namespace.buffer_get_analytics_relation_meta(buffer)
    relations = relations or namespace.buffer_add_analytics_relation_meta(buffer)
    label, ids, added = GLib.quark_from_string(PERSON), list[int | None](), True
    for person, (x, y, width, height) in enumerate(pixel_boxes(record).tolist()):
        ids.append(None)
        if width and height:
            added, detection = relations.add_od_mtd(label, x, y, width, height, float(record.scores[person]))
            if added:
                ids[-1] = detection.id
    if hasattr(relations, "add_keypoints_group"):
        _add_groups(namespace, relations, record, ids)
    return ids


def _add_groups(namespace: Any, relations: Any, record: PoseRecord, ids: list[int | None]) -> None:
    kinds, skeleton = namespace.RelTypes, record.own_skeleton
    tag = "/".join([*filter(None, [record.model]), FORMAT_PREFIX + record.skeleton])
    links = [index for edge in skeleton.edges for index in edge]
    points = pixel_keypoints(record).reshape(len(ids), 2 * len(skeleton)).tolist()  # (N, 2 K)
    scores = record.keypoints[..., 2]
    visible = (scores >= np.float32(record.keypoint_threshold)).tolist()
    for person, detection in enumerate(ids):
        if detection is None:
            continue
        flags = [VISIBLE if seen else UNKNOWN for seen in visible[person]]
        added, group = relations.add_keypoints_group(
            tag, namespace.KeypointDimensions(DIMENSIONS), points[person], scores[person].tolist(), flags, links
        )
        if added:
            relations.set_relation(kinds.CONTAIN, detection, group.id)
            relations.set_relation(kinds.IS_PART_OF, group.id, detection)


@lru_cache(maxsize=1)
def _namespace() -> Any:
    """GStreamer's analytics library as the bindings show it, or a text that says why it is not there."""
    import gi

    try:
        gi.require_version("GstAnalytics", "1.0")
        from gi.repository import GstAnalytics
    except (ImportError, ValueError) as error:
        if Gst.version()[:2] < ARRIVED:
            return f"{Gst.version_string()} is older than {'.'.join(map(str, ARRIVED))}, which brought it"
        return f"{error}; apt-get install gir1.2-gst-plugins-bad-1.0"
    return GstAnalytics
