"""Time of what the host does for DAC's candidates: the input of the pose networks, and the choice among the poses.

    python benchmarks/dual_centers_time.py [--people 30] [--rounds 100]

Random maps and poses, each person seen from both centers; `people` candidates a center. Columns in ms, the median over
rounds: context (sampling all levels and the heatmaps), similarity and grouping, all of the choice, and decoding
both centers.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from posesdk.decode import ImageMaps, InitialPoses, decode_center_offset
from posesdk.dual_centers import DualCenters, level_channels, pose_context
from posesdk.grouping import group_poses, pose_similarity
from posesdk.spec import BackboneSpec, EdgeBackboneSpec, HRNetSpec, ModelSpec
from posesdk.terminal import show_line

CASES: tuple[tuple[str, BackboneSpec, int], ...] = (
    ("nano, net side 320", EdgeBackboneSpec(neck=48), 80),
    ("W32, net side 512", HRNetSpec(), 128),
    ("W48, net side 640", HRNetSpec(channels=(48, 96, 192, 384)), 160),
)
"""Backbone and cells along a side of the finest level."""
FloatArray = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    show_line(f"{'':22}{'context':>10}{'similarity':>12}{'grouping':>10}{'choice':>10}{'decode':>10}")
    for title, backbone, side in CASES:
        spec = ModelSpec(name="benchmark", method="dac", centers="dual", backbone=backbone)
        times = [milliseconds(work, options.rounds) for work in stages(spec, side, options.people)]
        show_line(f"{title:22}{times[0]:10.2f}{times[1]:12.2f}{times[2]:10.2f}{times[3]:10.2f}{times[4]:10.2f}")


def stages(spec: ModelSpec, side: int, people: int) -> list[Callable[[], object]]:
    """The work of each column, on maps of `side` cells a side."""
    rng = np.random.default_rng(0)
    maps, initial, outputs = random_maps(spec, side, rng), random_poses(spec, side, people, rng), {}
    outputs["similarity"] = random_looks(people, spec.pose_nets.embedding, rng)
    outputs["confidence"] = rng.uniform(0.1, 0.9, 2 * people).astype(np.float32)
    outputs["residuals"] = rng.normal(size=initial.keypoints.shape).astype(np.float32)
    sigma, threshold = spec.pose_nets.group_sigma, spec.pose_nets.group_threshold
    alike = pose_similarity(initial.keypoints, outputs["similarity"], sigma) > threshold
    return [
        lambda: pose_context(initial.keypoints, maps.own, spec),
        lambda: pose_similarity(initial.keypoints, outputs["similarity"], sigma),
        lambda: group_poses(alike, outputs["confidence"]),
        lambda: DualCenters().finish(initial, maps, outputs, spec),
        lambda: decode_center_offset(maps.heatmaps, maps.offsets, spec),
    ]


def random_maps(spec: ModelSpec, side: int, rng: np.random.Generator) -> ImageMaps:
    """Random maps whose finest level has `side` cells a side."""
    own = {
        f"level{r}": rng.normal(size=(side >> r, side >> r, depth)).astype(np.float32)
        for r, depth in enumerate(level_channels(spec))
    }
    heatmaps = rng.uniform(0, 1, (spec.keypoint_count + 2, side, side)).astype(np.float32)
    offsets = rng.normal(size=(4 * spec.keypoint_count, side, side)).astype(np.float32)
    return ImageMaps(heatmaps, offsets, own | {"heatmaps": heatmaps})


def random_poses(spec: ModelSpec, side: int, people: int, rng: np.random.Generator) -> InitialPoses:
    """Both poses of each person, some px apart."""
    shapes = rng.uniform(-1, 1, (people, spec.keypoint_count, 2)) * rng.uniform(8, 80, (people, 1, 1))
    once = shapes + rng.uniform(0, 4 * side, (people, 1, 2))
    keypoints = np.concatenate([once, once + rng.normal(size=once.shape)]).astype(np.float32)
    scores = rng.uniform(0.01, 1, 2 * people).astype(np.float32)
    return InitialPoses(keypoints, scores, keypoints.mean(axis=1), np.repeat([0, 1], people))


def random_looks(people: int, depth: int, rng: np.random.Generator) -> FloatArray:
    """(2 * people, depth) codes of length 1, both of a person the same."""
    looks = np.tile(rng.normal(size=(people, depth)), (2, 1))
    unit: FloatArray = (looks / np.linalg.norm(looks, axis=1, keepdims=True)).astype(np.float32)
    return unit


def milliseconds(work: Callable[[], object], rounds: int) -> float:
    """Median time of one run, after one that does not count."""
    work()
    laps = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        laps.append(time.perf_counter() - start)
    return float(np.median(laps) * 1e3)


if __name__ == "__main__":
    main()
