"""Memory of a process that runs pipelines for long, and of one that makes and ends many."""

import gc
import json
import re
import resource
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np

import posesdk.gst
from gst_measure.camera import FPS, NEWEST_FEW, Camera, load_pictures, source_launch
from gst_measure.pipelines import start, wait_for_end
from posesdk.gst.bindings import Gst

SAMPLE_EVERY_S = 5.0
STREAMS = 2
PAGE = resource.getpagesize()
MIB = 1 << 20
STEADY = 1 / 3
"""This part at the beginning is not looked at: caches fill, and allocators find their size."""
ONE_HEAP = {"MALLOC_ARENA_MAX": "1"}
"""glibc keeps heaps of threads that ended, up to 8 for each core, and fills them one by one for hundreds of cycles."""


def rss_mib() -> float:
    """Memory of this process, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / MIB


def slope(xs: list[float], ys: list[float]) -> float:
    """Of a line through the later two thirds, by least squares."""
    kept = slice(int(len(xs) * STEADY), None)
    return float(np.polyfit(xs[kept], ys[kept], 1)[0])


def thirds(sizes: list[float]) -> dict[str, float]:
    """The median of the second third and of the last."""
    one, two = int(len(sizes) * STEADY), int(len(sizes) * 2 * STEADY)
    return {
        "second_third_mib": round(float(np.median(sizes[one:two])), 1),
        "last_third_mib": round(float(np.median(sizes[two:])), 1),
    }


def run_long(video: Path, minutes: float, model: str) -> dict[str, Any]:
    """Two live streams with everything on: one shared model, drawing, all metadata, messages, signal, JSON lines."""
    posesdk.gst.register()
    pictures, count = load_pictures(video), round(minutes * 60 * FPS)
    pipelines = [Gst.parse_launch(_everything(index, model)) for index in range(STREAMS)]
    for pipeline in pipelines:
        start(pipeline)
    cameras = [Camera(one.get_by_name("camera"), pictures, count, 1 / 2) for one in pipelines]
    for camera in cameras:
        camera.start()
    minutes_at, sizes, messages = [], [], 0
    began = time.monotonic()
    while any(camera.is_alive() for camera in cameras):
        time.sleep(SAMPLE_EVERY_S)
        messages += sum(_read_bus(pipeline) for pipeline in pipelines)
        minutes_at.append((time.monotonic() - began) / 60)
        sizes.append(rss_mib())
    stats = [json.loads(one.get_by_name("pose").get_property("stats")) for one in pipelines]
    for pipeline in pipelines:
        pipeline.set_state(Gst.State.NULL)
    return {
        "minutes": round(minutes_at[-1], 2),
        "mib_per_10_min": round(10 * slope(minutes_at, sizes), 3),
        **thirds(sizes),
        "messages": messages,
        "streams": stats,
        "samples": [[round(at, 3), round(size, 2)] for at, size in zip(minutes_at, sizes, strict=True)],
    }


def _everything(index: int, model: str) -> str:
    named = f'model="{model}"' if model else ""
    pose = f"logocappose name=pose {named} mode=skip instance-id=shared draw=true attach=all messages=true"
    return (
        f"{source_launch('camera', NEWEST_FEW)} ! {pose} stream-id=camera{index} ! tee name=t "
        "t. ! queue ! logocapposejson ! filesink location=/dev/null "
        "t. ! queue ! fakesink sync=false"
    )


def _read_bus(pipeline: Any) -> int:
    """How many messages of poses were waiting. SystemExit at an error."""
    bus, poses = pipeline.get_bus(), 0
    while (message := bus.pop()) is not None:
        if message.type == Gst.MessageType.ERROR:
            raise SystemExit(message.parse_error()[0].message)
        poses += message.type == Gst.MessageType.ELEMENT and message.get_structure().get_name() == "logocappose"
    return poses


def run_cycles(cycles: int, model: str) -> dict[str, Any]:
    """Makes, runs and ends a pipeline again and again; in the end Gst.deinit, for the tracer of leaks."""
    posesdk.gst.register()
    sizes, seconds, alive = [], [], []
    for _ in range(cycles):
        began = time.monotonic()
        alive.append(_cycle(model))
        gc.collect()
        seconds.append(time.monotonic() - began)
        sizes.append(rss_mib())
    left = sum(reference() is not None for reference in alive)
    Gst.deinit()
    return {
        "cycles": cycles,
        "kib_per_cycle": round(1024 * slope([float(index) for index in range(cycles)], sizes), 2),
        **thirds(sizes),
        "elements_alive": left,
        "ms_per_cycle": round(1e3 * float(np.median(seconds)), 1),
        "samples": [round(size, 2) for size in sizes],
    }


def _cycle(model: str) -> "weakref.ref[Any]":
    named = f'model="{model}"' if model else ""
    pipeline = Gst.parse_launch(
        "videotestsrc num-buffers=3 ! video/x-raw,format=I420,width=640,height=360 ! "
        f"logocappose name=pose {named} mode=skip draw=true attach=all messages=true ! fakesink"
    )
    start(pipeline)
    wait_for_end(pipeline, 60)
    pipeline.set_state(Gst.State.NULL)
    return weakref.ref(pipeline.get_by_name("pose"))


def count_leaks(program: str, cycles: int, model: str) -> dict[str, Any]:
    """What GStreamer's own tracer finds alive at the end of some cycles, in a process of its own."""
    traced = {"GST_TRACERS": "leaks", "GST_DEBUG": "GST_TRACER:7", "GST_DEBUG_NO_COLOR": "1"}
    command = [sys.executable, program, "--traced-cycles", str(cycles), "--model", model]
    environment = ["env", *(f"{name}={value}" for name, value in traced.items())]
    done = subprocess.run([*environment, *command], capture_output=True, text=True, timeout=600, check=False)
    alive = re.findall(r"object-alive, (type-name=\(string\)\w.*)", done.stderr)
    return {"cycles": cycles, "code": done.returncode, "alive": alive}
