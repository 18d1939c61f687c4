"""Time of several frames in one batch against the same frames one by one, in turns in one run.

    python benchmarks/batch_time.py VIDEO [BUNDLE] [--frames 4] [--runtime openvino] [--precision int8] [--threads 1]

Frames are resized to 1280 x 720 beforehand. The ratio is the median over rounds of both, above 1 where a batch is
slower; `shift` the largest difference of a keypoint, in px of the frame.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.bundle import default_bundle_path
from posesdk.detector import Detector
from posesdk.poses import Poses
from posesdk.sources import open_source
from posesdk.terminal import show_line

ROUNDS = 40
SIZE = (1280, 720)
"""Width and height."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("bundle", nargs="?", type=Path, default=default_bundle_path())
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    images = spread(options.video, options.frames)
    settings = {name: getattr(options, name) for name in ("runtime", "device", "precision", "threads")}
    with Detector(options.bundle, **settings) as detector:
        show_line(f"{detector!r}, threads {options.threads or 'left to the runtime'}, {len(images)} frames of {SIZE}")
        compare(detector, images)


def compare(detector: Detector, images: list[NDArray[np.uint8]]) -> None:
    single, batch = [detector(image) for image in images], detector.detect_batch(images)
    shift = max(_shift(one, other) for one, other in zip(single, batch, strict=True))
    times = np.array(
        [
            (
                milliseconds(lambda: [detector(image) for image in images]),
                milliseconds(lambda: detector.detect_batch(images)),
            )
            for _ in range(ROUNDS)
        ]
    )
    one_by_one, together = np.median(times, axis=0)
    people = sum(len(poses) for poses in single)
    ratio = np.median(times[:, 1] / times[:, 0])
    show_line(
        f"one by one {one_by_one:.1f} ms, one batch {together:.1f} ms, ratio {ratio:.2f}, {people} people, "
        f"shift {shift:.4f} px"
    )


def spread(video: Path, count: int) -> list[NDArray[np.uint8]]:
    """Frames from all over a video."""
    images = [frame.image for frame in open_source(video)]
    return [np.asarray(cv2.resize(images[len(images) * index // count], SIZE), np.uint8) for index in range(count)]


def milliseconds(work: Callable[[], list[Poses]]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def _shift(one: Poses, other: Poses) -> float:
    if len(one) != len(other):
        return float("nan")
    return float(np.abs(one.keypoints - other.keypoints).max(initial=0.0))


if __name__ == "__main__":
    main()
