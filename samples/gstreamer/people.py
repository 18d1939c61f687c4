"""People in lines of poses: keypoints, boxes, and who in one frame is who in the next. Needs Python alone."""

from typing import Any

Point = tuple[float, float]
Points = dict[int, Point]
Box = tuple[float, float, float, float]

SAME_PERSON = 0.3
"""Part of the smaller box that two frames' boxes of a person share at least; the box turns over in a fall."""


def middle(points: Points, left: int, right: int) -> Point | None:
    """Between the left and the right keypoint, or the one that is visible."""
    found = [points[index] for index in (left, right) if index in points]
    return (sum(x for x, _ in found) / len(found), sum(y for _, y in found) / len(found)) if found else None


def box_of(points: Points) -> Box:
    xs, ys = zip(*points.values(), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def shared(a: Box, b: Box) -> float:
    """The part of the smaller box that lies in the other one."""
    across, along = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(across, 0) * max(along, 0) / smaller if smaller > 0 else 0.0


class Follower:
    """Numbers the people of one camera, the same from frame to frame; times are seconds of the stream.

    Forgets who is unseen for `gap` seconds. Keypoints of a smaller score than `score` do not count.
    """

    def __init__(self, gap: float, score: float) -> None:
        self.gap, self.score, self.count = gap, score, 0
        self.last: dict[int, tuple[float, Box]] = {}

    def update(self, time: float, persons: list[dict[str, Any]]) -> dict[int, Points]:
        """The visible keypoints of each person in a frame; `persons` as in the JSON, the best first."""
        self.last = {number: (seen, box) for number, (seen, box) in self.last.items() if 0 <= time - seen <= self.gap}
        found: dict[int, Points] = {}
        for person in persons:
            points = {i: (x, y) for i, (x, y, score) in enumerate(person["keypoints"]) if score >= self.score}
            if points:
                found[self.number(box_of(points), set(self.last) - set(found))] = points
        self.last |= {number: (time, box_of(points)) for number, points in found.items()}
        return found

    def number(self, box: Box, free: set[int]) -> int:
        best, same = max(((shared(self.last[one][1], box), one) for one in free), default=(0.0, 0))
        if best >= SAME_PERSON:
            return same
        self.count += 1
        return self.count
