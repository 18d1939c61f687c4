"""The Detector at the pace of a camera, without GStreamer: what the processor time of an element is held against."""

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gst_measure.camera import FPS, HEIGHT, load_pictures
from gst_measure.probes import spread
from posesdk.detector import Detector


def detector_alone(video: Path, seconds: float, model: Path | None) -> dict[str, Any]:
    """As a scenario of one stream: the same pictures, converted from I420 as the element does."""
    planes = [_plane(picture) for picture in load_pictures(video)]
    count, times = round(seconds * FPS), []
    with Detector(model) as detector:
        detector(cv2.cvtColor(planes[0], cv2.COLOR_YUV2BGR_I420))
        cpu, began = time.process_time(), time.monotonic()
        for index in range(count):
            time.sleep(max(0.0, began + index / FPS - time.monotonic()))
            start = time.perf_counter()
            detector(cv2.cvtColor(planes[index % len(planes)], cv2.COLOR_YUV2BGR_I420))
            times.append(1e3 * (time.perf_counter() - start))
        spent, took = time.process_time() - cpu, time.monotonic() - began
    stream = {
        "camera": count,
        "out": count,
        "fps": round(count / took, 2),
        "model_ms": spread(times),
        "stats": {"inferred": count},
    }
    return {"streams": [stream], "cpu_s": round(spent, 2), "cpu_percent": round(100 * spent / took, 1)}


def _plane(picture: Any) -> Any:
    data = picture.extract_dup(0, picture.get_size())
    return np.frombuffer(data, np.uint8).reshape(HEIGHT * 3 // 2, -1)
