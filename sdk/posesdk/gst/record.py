"""`PoseRecord`: the poses of one frame as buffers carry them, in the frame's own units and with their age."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posesdk.poses import FrameInfo, Poses
from posesdk.skeleton import COCO_17, SKELETONS, Skeleton

__all__ = ["FORMAT_PREFIX", "PIXEL_DECIMALS", "PoseRecord"]

FORMAT_PREFIX = "body-pose/"
"""What stands before a skeleton's name where metadata says which keypoints it holds: "body-pose/coco-17"."""

PIXEL_DECIMALS = 3
"""Digits of a pixel coordinate: what float32 parts of a frame of 8192 pixels can hold."""

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PoseRecord:
    """N people with K keypoints; what is attached to a buffer, sent as a signal and written as a line, all alike.

    `keypoints` (N, K, 3) float32: x and y in parts of the inferred frame, which spans exactly 0..1 (a point may lie
    outside of it), and the score; `scores` (N,) float32 descending. `width` and `height` are the inferred frame's in
    pixels, `pts_ns` its time stamp or None, `age_ns` how much older it is than the frame that carries the record, and
    `fresh` whether it is that very frame. `skeleton` is a name; `definition` describes a skeleton that the SDK does not
    know by its name. `timing` and `infer_ms` are milliseconds, per stage and in all.

    Parts of a frame in float32 give back a coordinate to 0.0003 pixels at 8192 pixels and 0.00004 at 1280, but not its
    digits: 123.45 would become 123.450005. Pixels that are made from a record are therefore rounded to 3 decimals, less
    than 0.001 from the detector's, and equal wherever they are made.
    """

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    width: int
    height: int
    skeleton: str = COCO_17.name
    definition: Skeleton | None = None
    pts_ns: int | None = None
    age_ns: int = 0
    fresh: bool = True
    source: str | None = None
    index: int = 0
    model: str = ""
    runtime: str = ""
    keypoint_threshold: float = 0.0
    track_ids: NDArray[np.int64] | None = None
    timing: Mapping[str, float] = field(default_factory=dict)
    infer_ms: float = 0.0

    def __post_init__(self) -> None:
        """Keeps read-only views. ValueError for arrays whose shapes do not belong together, or a frame without size."""
        keypoints = np.asarray(self.keypoints, np.float32)
        scores = np.asarray(self.scores, np.float32)
        if keypoints.ndim != 3 or keypoints.shape[2] != 3 or scores.shape != keypoints.shape[:1]:
            raise ValueError(f"expected keypoints (N, K, 3) and scores (N,), got {keypoints.shape} and {scores.shape}")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"expected a frame of at least 1x1 pixels, got {self.width}x{self.height}")
        object.__setattr__(self, "keypoints", _read_only(keypoints))
        object.__setattr__(self, "scores", _read_only(scores))
        if self.track_ids is not None:
            ids = np.asarray(self.track_ids, np.int64).reshape(len(scores))
            object.__setattr__(self, "track_ids", _read_only(ids))
        object.__setattr__(self, "timing", MappingProxyType(dict(self.timing)))

    @classmethod
    def from_poses(cls, poses: Poses, *, pts_ns: int | None, runtime: str) -> "PoseRecord":
        """The detector's poses of the frame with that time stamp, as a fresh record; `runtime` is the one that ran."""
        height, width = poses.image_size
        places = (poses.keypoints + np.float64(0.5)) / np.array([width, height], np.float64)
        return cls(
            keypoints=np.concatenate([places, poses.keypoint_scores[..., None]], axis=2, dtype=np.float32),
            scores=poses.scores,
            width=width,
            height=height,
            skeleton=poses.skeleton.name,
            definition=None if SKELETONS.get(poses.skeleton.name) == poses.skeleton else poses.skeleton,
            pts_ns=pts_ns,
            source=poses.frame.source,
            index=poses.frame.index,
            model=poses.model,
            runtime=runtime,
            keypoint_threshold=poses.keypoint_threshold,
            track_ids=poses.track_ids,
            timing=poses.timing,
            infer_ms=sum(poses.timing.values()),
        )

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(N, 4) float32 x, y, width, height in parts of the frame, the tight box of all K keypoints of each person.

        Its corner is placed like a point; its width and height are the extents of the points.
        """
        least, most = self.keypoints[..., :2].min(axis=1), self.keypoints[..., :2].max(axis=1)
        return np.concatenate([least, most - least], axis=1)

    @property
    def own_skeleton(self) -> Skeleton:
        """The skeleton by its name or definition; points by number, without limbs, where only the name is known."""
        known = self.definition or SKELETONS.get(self.skeleton)
        return known or _numbered(self.skeleton, self.keypoints.shape[1])

    def aged(self, age_ns: int) -> "PoseRecord":
        """The same poses on a frame that is `age_ns` younger than theirs."""
        return replace(self, age_ns=age_ns, fresh=False)

    def to_poses(self, skeleton: Skeleton | None = None, size: tuple[int, int] | None = None) -> Poses:
        """In pixels of the inferred frame, or of a frame of `size` (height, width), rounded to 3 decimals.

        The skeleton is the record's own. ValueError for one that is given and has another name or number of keypoints.
        """
        skeleton = self.own_skeleton if skeleton is None else skeleton
        if skeleton.name != self.skeleton or len(skeleton) != self.keypoints.shape[1]:
            raise ValueError(
                f"expected skeleton {self.skeleton!r} of {self.keypoints.shape[1]} keypoints, "
                f"got {skeleton.name!r} of {len(skeleton)}; pass it as `skeleton`"
            )
        height, width = (self.height, self.width) if size is None else size
        pixels = self.keypoints[..., :2] * np.array([width, height], np.float64) - 0.5
        return Poses(
            keypoints=pixels.round(PIXEL_DECIMALS).astype(np.float32) + np.float32(0),  # no -0.0
            keypoint_scores=self.keypoints[..., 2],
            scores=self.scores,
            image_size=(height, width),
            skeleton=skeleton,
            model=self.model,
            keypoint_threshold=self.keypoint_threshold,
            track_ids=self.track_ids,
            frame=FrameInfo(self.source, self.index, None if self.pts_ns is None else self.pts_ns / NANOSECONDS),
            timing=self.timing,
        )

    def to_dict(self) -> dict[str, Any]:
        """`Poses.to_dict` in pixels of the inferred frame, and under "stream" the exact time stamp and the age."""
        stream = {"pts_ns": self.pts_ns, "age_ns": self.age_ns, "fresh": self.fresh}
        return {**self.to_poses().to_dict(), "stream": stream}

    def to_json(self) -> str:
        """`to_dict` in one line, without the line's end."""
        return json.dumps(self.to_dict(), separators=(",", ":"))


@lru_cache(maxsize=8)
def _numbered(name: str, count: int) -> Skeleton:
    """A skeleton of which only the name and the number of keypoints are known: points without limbs."""
    return Skeleton(name=name, keypoints=tuple(str(index) for index in range(count)), sigmas=(1.0,) * count)


def _read_only(values: NDArray[Any]) -> NDArray[Any]:
    values = values.view()
    values.setflags(write=False)
    return values
