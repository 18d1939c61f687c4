"""`Poses`: what the detector found in one frame, and the one schema it is written in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posesdk.skeleton import COCO_17, Skeleton
from posesdk_runtimes.errors import MissingDependencyError

__all__ = ["SCHEMA_VERSION", "FrameInfo", "Pose", "Poses"]

SCHEMA_VERSION = 1
"""The `v` of every JSON object that the SDK writes."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """Where a frame comes from: its source by name, its running number there, and its time in seconds if it has one."""

    source: str | None = None
    index: int = 0
    pts: float | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pose:
    """One person: keypoints (K, 2) in pixels of the image, their scores and visibility (K,), box (4,) xyxy."""

    keypoints: Floats
    keypoint_scores: Floats
    visible: NDArray[np.bool_]
    score: float
    box: Floats
    skeleton: Skeleton
    track_id: int | None = None

    def keypoint(self, name: str) -> tuple[float, float, float]:
        """x, y and score of a keypoint by its name; ValueError for a name that the skeleton does not have."""
        if name not in self.skeleton.keypoints:
            raise ValueError(f"expected one of {', '.join(self.skeleton.keypoints)}, got {name!r}")
        index = self.skeleton.keypoints.index(name)
        x, y = self.keypoints[index]
        return float(x), float(y), float(self.keypoint_scores[index])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Poses:
    """The people of one frame, the best first; read-only arrays that belong to this object. N = 0 keeps its shapes.

    `keypoints` (N, K, 2) float32 x, y in pixels of the original image, (0, 0) = center of the top-left pixel; they may
    lie outside of it. `keypoint_scores` (N, K), `scores` (N,) descending, `track_ids` (N,) or None. `image_size` is
    (height, width), `timing` milliseconds per stage. A keypoint that scores below `keypoint_threshold` keeps its
    coordinates; it is only not `visible`.
    """

    keypoints: Floats
    keypoint_scores: Floats
    scores: Floats
    image_size: tuple[int, int]
    skeleton: Skeleton = COCO_17
    model: str = ""
    keypoint_threshold: float = 0.0
    track_ids: NDArray[np.int64] | None = None
    frame: FrameInfo = FrameInfo()
    timing: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        scores = _shaped(self.scores, (-1,), "scores")
        count, joints = len(scores), len(self.skeleton)
        order = np.argsort(-scores, kind="stable")
        columns = {
            "keypoints": _shaped(self.keypoints, (count, joints, 2), "keypoints"),
            "keypoint_scores": _shaped(self.keypoint_scores, (count, joints), "keypoint_scores"),
            "scores": scores,
        }
        for name, values in columns.items():
            object.__setattr__(self, name, _read_only(values[order]))  # a copy
        if self.track_ids is not None:
            ids = np.asarray(self.track_ids, dtype=np.int64).reshape(count)
            object.__setattr__(self, "track_ids", _read_only(ids[order]))
        object.__setattr__(self, "timing", MappingProxyType(dict(self.timing)))

    @property
    def boxes(self) -> Floats:
        """(N, 4) float32 xyxy, the tight box of all K keypoints of each person."""
        return _read_only(np.concatenate([self.keypoints.min(axis=1), self.keypoints.max(axis=1)], axis=1))

    @property
    def visible(self) -> NDArray[np.bool_]:
        """(N, K) whether a keypoint scores at least `keypoint_threshold`."""
        return _read_only(self.keypoint_scores >= np.float32(self.keypoint_threshold))

    def above(self, score: float) -> "Poses":
        """Only the people that score at least `score`."""
        enough = self.scores >= np.float32(score)
        return self if enough.all() else self[enough]

    def __len__(self) -> int:
        """Number of people N."""
        return len(self.scores)

    def __iter__(self) -> Iterator[Pose]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Pose: ...
    @overload
    def __getitem__(self, index: slice | NDArray[Any] | list[int]) -> "Poses": ...
    def __getitem__(self, index: int | slice | NDArray[Any] | list[int]) -> "Pose | Poses":
        """One `Pose` for a number; `Poses`, the best first, for a slice, a list of numbers or a mask."""
        if isinstance(index, int | np.integer):
            return self._person(int(index))
        if isinstance(index, list):
            index = np.asarray(index) if index else np.zeros(0, np.intp)
        picked = np.arange(len(self))[index]
        return replace(
            self,
            keypoints=self.keypoints[picked],
            keypoint_scores=self.keypoint_scores[picked],
            scores=self.scores[picked],
            track_ids=None if self.track_ids is None else self.track_ids[picked],
        )

    def _person(self, index: int) -> Pose:
        if not -len(self) <= index < len(self):
            raise IndexError(f"person {index} of {len(self)}")
        return Pose(
            keypoints=self.keypoints[index],
            keypoint_scores=self.keypoint_scores[index],
            visible=self.visible[index],
            score=float(self.scores[index]),
            box=self.boxes[index],
            skeleton=self.skeleton,
            track_id=None if self.track_ids is None else int(self.track_ids[index]),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles what the constructor takes: a copy in another process is as read-only as this one."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)} | {"timing": dict(self.timing)}
        return _make, (values,)

    def __repr__(self) -> str:
        height, width = self.image_size
        scores = ", ".join(f"{score:.2f}" for score in self.scores[:5]) + (", ..." if len(self) > 5 else "")
        return f"Poses({len(self)} x {self.skeleton.name}, image {width}x{height}, scores [{scores}])"

    def to_dict(self) -> dict[str, Any]:
        """The schema of every JSON of the SDK; numbers are the shortest that give the same float32 again."""
        height, width = self.image_size
        ids: list[int | None] = [None] * len(self) if self.track_ids is None else self.track_ids.tolist()
        points = np.concatenate([self.keypoints, self.keypoint_scores[..., None]], axis=2)  # (N, K, 3)
        return {
            "v": SCHEMA_VERSION,
            "source": self.frame.source,
            "index": self.frame.index,
            "pts": None if self.frame.pts is None else round(self.frame.pts, 6),
            "width": width,
            "height": height,
            "model": self.model,
            "skeleton": self.skeleton.name,
            "persons": [
                {"id": track, "score": score, "box": box, "keypoints": person}
                for track, score, box, person in zip(ids, *map(_short, (self.scores, self.boxes, points)), strict=True)
            ],
            "timing_ms": {stage: round(spent, 3) for stage, spent in self.timing.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], skeleton: Skeleton = COCO_17) -> "Poses":
        """The inverse of `to_dict`. ValueError for another schema version or a skeleton of another name."""
        if data.get("v") != SCHEMA_VERSION:
            raise ValueError(f"expected schema version {SCHEMA_VERSION}, got {data.get('v')!r}")
        if data["skeleton"] != skeleton.name:
            raise ValueError(f"expected skeleton {skeleton.name!r}, got {data['skeleton']!r}; pass it as `skeleton`")
        persons = data["persons"]
        points = np.asarray([person["keypoints"] for person in persons], np.float32).reshape(-1, len(skeleton), 3)
        ids = [person["id"] for person in persons]
        return cls(
            keypoints=points[..., :2],
            keypoint_scores=points[..., 2],
            scores=np.asarray([person["score"] for person in persons], np.float32),
            image_size=(data["height"], data["width"]),
            skeleton=skeleton,
            model=data["model"],
            track_ids=None if not ids or None in ids else np.asarray(ids, np.int64),
            frame=FrameInfo(data["source"], data["index"], data["pts"]),
            timing=data["timing_ms"],
        )

    def to_coco(self, image_id: int, category_id: int = 1) -> list[dict[str, Any]]:
        """COCO keypoint results. There is no `bbox`: with one, pycocotools takes a person's area from the box."""
        points = np.concatenate([self.keypoints, self.keypoint_scores[..., None]], axis=2)  # (N, K, 3)
        return [
            {
                "image_id": image_id,
                "category_id": category_id,
                "keypoints": _short(person.reshape(-1)),
                "score": _short(score),
            }
            for person, score in zip(points, self.scores, strict=True)
        ]

    def to_supervision(self) -> Any:
        """`supervision.KeyPoints` of the same people; MissingDependencyError where supervision is not installed."""
        try:
            import supervision
        except ImportError as error:
            raise MissingDependencyError(
                "converting poses to supervision.KeyPoints needs supervision, which is not installed: "
                "run `pip install supervision`"
            ) from error
        data: dict[str, Any] = {
            "xy": self.keypoints.copy(),
            "class_id": np.zeros(len(self), dtype=int),
            "keypoint_confidence": self.keypoint_scores.copy(),
            "detection_confidence": self.scores.copy(),
            "visible": self.visible.copy(),
        }
        known = supervision.KeyPoints.__init__.__annotations__
        if "keypoint_confidence" not in known:  # before supervision 0.29
            data = {"xy": data["xy"], "class_id": data["class_id"], "confidence": data["keypoint_confidence"]}
        return supervision.KeyPoints(**data)

    def draw(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of the frame (H, W, 3) uint8 BGR with the skeletons drawn on it; see `posesdk.draw`."""
        from posesdk.draw import draw_poses

        return draw_poses(frame, self)


def _make(values: dict[str, Any]) -> Poses:
    return Poses(**values)


def _shaped(values: ArrayLike, shape: tuple[int, ...], name: str) -> Floats:
    array = np.asarray(values, dtype=np.float32)
    if array.ndim != len(shape) or any(want not in (-1, have) for want, have in zip(shape, array.shape, strict=True)):
        expected = tuple("N" if side == -1 else side for side in shape)
        raise ValueError(f"{name}: expected shape {expected}, got {array.shape}")
    return array


def _read_only(values: NDArray[Any]) -> NDArray[Any]:
    values.setflags(write=False)
    return values


def _short(values: NDArray[Any]) -> Any:
    """The same numbers as Python floats with the fewest digits that name the float32, all spelled in one call."""
    texts = values.astype(np.str_).reshape(-1).tolist()
    return np.array([float(text) for text in texts]).reshape(values.shape).tolist()
