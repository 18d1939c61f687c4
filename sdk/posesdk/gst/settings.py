"""The properties of `logocappose` and the values that they may have."""

from collections.abc import Mapping
from typing import Any

from posesdk.gst.bindings import GLib, GObject, Gst
from posesdk.gst.faults import SettingsFault

__all__ = ["ATTACH", "MODES", "OPTIONS", "PROPERTIES", "READY_ONLY", "parse_options", "validated"]

MODES = ("auto", "sync", "skip", "drop")
ATTACH = ("custom", "roi", "analytics", "all", "none")
OPTIONS = ("variant", "flip-test", "batch")
"""What the property `options` may name."""

_ANYTIME = GObject.ParamFlags.READWRITE | Gst.PARAM_MUTABLE_PLAYING
_READY = GObject.ParamFlags.READWRITE | Gst.PARAM_MUTABLE_READY
_SECOND = 1_000_000_000
_ANY_TIME = GLib.MAXUINT64

PROPERTIES: Mapping[str, tuple[Any, ...]] = {
    "model": (str, "Model", "A bundle, or the name of a shipped model; empty: the default model", "", _READY),
    "runtime": (str, "Runtime", "auto, or the backend: onnxruntime, openvino, tensorrt, tflite", "auto", _READY),
    "device": (str, "Device", "auto, cpu, cuda, cuda:N, gpu, npu", "auto", _READY),
    "precision": (str, "Precision", "auto, or the variant's: fp32, fp16, int8, ...", "auto", _READY),
    "threads": (GObject.TYPE_UINT, "Threads", "Threads of the backend; 0: its own choice", 0, 1024, 0, _READY),
    "options": (str, "Options", "More settings of the model, KEY=VALUE,...: " + ", ".join(OPTIONS), "", _READY),
    "mode": (
        str,
        "Mode",
        "sync: every frame with its own poses; skip: every frame at once, with the newest poses; drop: only frames "
        "with their own poses, late ones are dropped; auto: skip for a live source, else sync",
        "auto",
        _READY,
    ),
    "interval": (GObject.TYPE_UINT, "Interval", "Look for people in one frame of so many", 1, 100_000, 1, _ANYTIME),
    "score-threshold": (
        GObject.TYPE_DOUBLE,
        "Score threshold",
        "Lowest score of a person; -1: the model's own",
        -1.0,
        1.0,
        -1.0,
        _ANYTIME,
    ),
    "keypoint-threshold": (
        GObject.TYPE_DOUBLE,
        "Keypoint threshold",
        "Lowest score of a keypoint that is drawn; -1: the model's own",
        -1.0,
        1.0,
        -1.0,
        _ANYTIME,
    ),
    "max-people": (GObject.TYPE_UINT, "Most people", "Most people in a frame", 1, 1000, 30, _ANYTIME),
    "draw": (bool, "Draw", "Draw the skeletons on the frames", False, _ANYTIME),
    "attach": (
        str,
        "Attach",
        "Metadata put on frames: custom (LogocapPoseMeta), roi, analytics, all (that this GStreamer has), none; "
        "several joined by +",
        "custom",
        _READY,
    ),
    "messages": (bool, "Messages", "Post an element message 'logocappose' with the poses as JSON", False, _ANYTIME),
    "stream-id": (str, "Stream id", "The source's name in JSON; empty: the element's name", "", _READY),
    "max-age": (
        GObject.TYPE_UINT64,
        "Largest age",
        "Nanoseconds after which poses of an earlier frame are not used any more",
        0,
        _ANY_TIME,
        _SECOND,
        _ANYTIME,
    ),
    "instance-id": (str, "Instance id", "Elements with the same one share one loaded model; empty: none", "", _READY),
    "latency-report": (bool, "Latency report", "Tell the pipeline the time of the model (sync, drop)", True, _READY),
    "stats": (
        str,
        "Statistics",
        "What was done so far, as JSON: frames = inferred + skipped + dropped",
        "",
        GObject.ParamFlags.READABLE,
    ),
}
"""GObject's description of every property: type, nick, blurb, range, default and flags."""

READY_ONLY = frozenset(name for name, row in PROPERTIES.items() if int(row[-1]) & int(Gst.PARAM_MUTABLE_READY))
"""What may not change while the element runs. GStreamer itself does not hold to that flag."""


def validated(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """The value of an enumeration. Raises SettingsFault."""
    if value not in allowed:
        raise SettingsFault(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
    return value


def parse_options(text: str) -> dict[str, str]:
    """The pairs of the property `options`. Raises SettingsFault."""
    pairs: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key not in OPTIONS or not equals or not value:
            raise SettingsFault(f"options: expected KEY=VALUE with a key of {', '.join(OPTIONS)}, got {part!r}")
        if key in pairs:
            raise SettingsFault(f"options: {key} is given twice, as {pairs[key]!r} and as {value!r}")
        pairs[key] = value
    return pairs
