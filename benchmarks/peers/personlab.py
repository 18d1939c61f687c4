"""People out of PoseNet's maps: PersonLab's greedy decoder (Papandreou et al., arXiv 1803.08225, section 3).

Written from the paper and from the constants of its published implementations (tfjs-models/posenet and
google-coral/edgetpu, both Apache-2.0). A keypoint is a local maximum of its heatmap, refined by a short offset. The
strongest one that belongs to nobody yet is the root of a new person, whose other keypoints are reached along the edges
of a tree by mid-range offsets, each refined by the short offsets where it lands. In a tree every keypoint is reached
in one way only, so all candidates walk at once, in any order, and the greedy choice comes after.
"""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["EDGES", "STRIDE", "decode_people", "rescored"]

EDGES = (
    *((0, 1), (1, 3), (0, 2), (2, 4)),
    *((0, 5), (5, 7), (7, 9), (5, 11), (11, 13), (13, 15)),
    *((0, 6), (6, 8), (8, 10), (6, 12), (12, 14), (14, 16)),
)
"""From keypoint to keypoint away from the nose, in the order of the mid-range offsets."""
STRIDE = 16
KEYPOINTS = 17
REFINEMENTS = 5
"""How often a place is corrected by the short offsets."""
RADIUS = 20.0
"""Pixels of the input within which two keypoints of a kind are one."""
MOST = 30

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


def decode_people(heatmaps: Floats, short: Floats, mid: Floats, floor: float) -> tuple[Floats, Floats]:
    """Keypoints (N, 17, 3) in px of the input and scores (N,), both of at least `floor`, the best first.

    `heatmaps` (h, w, 17) are logits. `short` (h, w, 34) and `mid` (h, w, 64) offsets are px of the input: y of every
    keypoint, then x; y and x of every edge outwards, then y and x of every edge inwards.
    """
    places, kinds, logits = _candidates(heatmaps, short, floor)
    points, values = _walk(places, kinds, heatmaps, short, mid)
    certain = (1 / (1 + np.exp(-values))).astype(np.float32)  # (M, 17)
    kept: list[int] = []
    for index in np.argsort(-logits, kind="stable"):
        known = points[kept, kinds[index]]  # (N, 2)
        if len(kept) < MOST and certain[index].mean() >= floor and not _near(known, places[index]).any():
            kept.append(int(index))
    return rescored(points[kept], certain[kept], floor)


def _candidates(heatmaps: Floats, short: Floats, floor: float) -> tuple[Floats, Indices, Floats]:
    """Places (M, 2) y, x in px, kinds (M,) and logits (M,) of local maxima in windows of 3 x 3 cells."""
    peaks = (cv2.dilate(heatmaps, np.ones((3, 3), np.uint8)) <= heatmaps) & (heatmaps >= np.log(floor / (1 - floor)))
    rows, columns, kinds = np.nonzero(peaks)
    cells = np.stack([rows, columns], axis=1).astype(np.float32) * STRIDE
    offsets = np.stack([short[rows, columns, kinds], short[rows, columns, kinds + KEYPOINTS]], axis=1)
    return _inside(cells + offsets, heatmaps), kinds, heatmaps[rows, columns, kinds]


def _walk(places: Floats, kinds: Indices, heatmaps: Floats, short: Floats, mid: Floats) -> tuple[Floats, Floats]:
    """Places (M, 17, 2) y, x and logits (M, 17) of all keypoints of the person that each candidate would be."""
    everyone = np.arange(len(kinds))
    points = np.zeros((len(kinds), KEYPOINTS, 2), np.float32)
    points[everyone, kinds] = places
    for steps in _plan():
        chosen = steps[kinds]  # (M, width, 3)
        who, which = np.nonzero(chosen[..., 0] >= 0)
        source, target, channel = chosen[who, which].T
        reached = points[who, source]
        reached = _inside(reached + _sample(mid, reached, np.stack([channel, channel + len(EDGES)], axis=1)), heatmaps)
        pair = np.stack([target, target + KEYPOINTS], axis=1)
        for _ in range(REFINEMENTS):
            reached = _inside(reached + _sample(short, reached, pair), heatmaps)
        points[who, target] = reached
    flat = points.reshape(-1, 2)
    channels = np.tile(np.arange(KEYPOINTS), len(kinds))[:, None]
    return points, _sample(heatmaps, flat, channels).reshape(-1, KEYPOINTS)


@lru_cache(maxsize=1)
def _plan() -> tuple[Indices, ...]:
    """By distance from the root: (17 roots, width, 3) source, target and channel of the offset's y; -1 fills up."""
    roads: dict[int, list[tuple[int, int]]] = {kind: [] for kind in range(KEYPOINTS)}
    for number, (inner, outer) in enumerate(EDGES):
        roads[inner].append((outer, number))
        roads[outer].append((inner, 2 * len(EDGES) + number))
    levels: list[list[list[tuple[int, int, int]]]] = []
    for root in range(KEYPOINTS):
        border, seen, depth = [root], {root}, 0
        while border:
            steps = [(at, to, road) for at in border for to, road in roads[at] if to not in seen]
            if len(levels) == depth:
                levels.append([[] for _ in range(KEYPOINTS)])
            levels[depth][root] = steps
            border = [to for _, to, _ in steps]
            seen.update(border)
            depth += 1
    plan = []
    for level in filter(any, levels):
        table = np.full((KEYPOINTS, max(map(len, level)), 3), -1, np.intp)
        for root, steps in enumerate(level):
            table[root, : len(steps)] = np.array(steps, np.intp).reshape(-1, 3)
        plan.append(table)
    return tuple(plan)


def _sample(maps: Floats, places: Floats, channels: Indices) -> Floats:
    """Values (M, n) of `channels` (M, n) between the cells, at places (M, 2) y, x in px."""
    cells = places / STRIDE
    low = np.floor(cells).astype(np.intp)
    high = np.minimum(low + 1, np.array(maps.shape[:2]) - 1)
    down, right = (cells - low).T[..., None]
    (top, left), (bottom, far) = low.T[..., None], high.T[..., None]
    above = maps[top, left, channels] * (1 - right) + maps[top, far, channels] * right
    below = maps[bottom, left, channels] * (1 - right) + maps[bottom, far, channels] * right
    values: Floats = above * (1 - down) + below * down
    return values


def _inside(places: Floats, maps: Floats) -> Floats:
    """Places (M, 2) y, x in px, none of them beyond the outermost cells."""
    limits = (np.array(maps.shape[:2], np.float32) - 1) * STRIDE
    return places.clip(0, limits)


def _near(points: Floats, others: Floats) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = ((points - others) ** 2).sum(axis=-1) <= RADIUS**2
    return near


def rescored(points: Floats, certain: Floats, floor: float) -> tuple[Floats, Floats]:
    """Keypoints (N, 17, 3) x, y, score and scores (N,) of at least `floor`, the best first.

    A score is the mean over a person's keypoints, of which those that a better person has as well count nothing.
    `points` (N, 17, 2) are y, x, `certain` (N, 17) their scores.
    """
    order = np.argsort(-certain.mean(axis=1), kind="stable")
    points, certain = points[order], certain[order]
    scores = np.zeros(len(points), np.float32)
    for index in range(len(points)):
        taken = _near(points[:index], points[index]).any(axis=0)  # (17,)
        scores[index] = np.where(taken, 0, certain[index]).mean()
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= floor]
    return np.concatenate([points[..., ::-1], certain[..., None]], axis=2)[order], scores[order]
