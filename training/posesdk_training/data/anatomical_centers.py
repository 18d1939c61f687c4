"""Head and body centers of persons (DAC, section 3.1), with a ladder for persons of whom not all is labelled.

Cheng et al., Bottom-Up 2D Pose Estimation via Dual Anatomical Centers for Small-Scale Persons: the body's center is
interpolated between shoulders and hips. The head's is the mean of the labelled keypoints of the face, as in PINet
(Wang et al., NeurIPS 2021); where a skeleton has no face, the middle between the top of the head and the neck.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from posesdk.keypoint_names import canonical_names
from posesdk.skeleton import Skeleton
from posesdk_runtimes.errors import DataError

__all__ = [
    "BODY",
    "HEAD",
    "AnatomicalCenters",
    "CenterPolicy",
    "CenterRules",
    "anatomical_centers",
    "center_rules",
    "labelled_channels",
]

Floats = NDArray[np.float32]
CenterPolicy = Literal["fallback", "strict"]

HEAD, BODY = 0, 1
"""Places of the centers, after the keypoints in the heatmaps."""

FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
SHOULDERS = ("left_shoulder", "right_shoulder")
HIPS = ("left_hip", "right_hip")


@dataclass(frozen=True, slots=True)
class CenterRules:
    """Indices of the keypoints that say where a skeleton's centers are.

    The head's center is the mean of the labelled ones of `head`, and of `neck` (none, or one) beside one of them.
    """

    head: tuple[int, ...]
    neck: tuple[int, ...]
    shoulders: tuple[int, int]
    hips: tuple[int, int]


@dataclass(frozen=True, slots=True)
class AnatomicalCenters:
    """`points` (P, 2, 2) head and body, px of the keypoints, and `valid` (P, 2) whether they are known.

    `steps` (P,) says what the body's center was made of: "a" shoulders and hips, "b" both shoulders, "c" both hips, "d"
    all that is labelled, as neither head nor body is known else; "" for no body center.
    """

    points: Floats
    valid: NDArray[np.bool_]
    steps: NDArray[np.str_]


def center_rules(skeleton: Skeleton) -> CenterRules:
    """The rules of a skeleton, by the names of its keypoints. Raises DataError for one without head or torso."""
    place = {name: index for index, name in enumerate(canonical_names(skeleton.keypoints))}
    face = tuple(place[name] for name in FACE if name in place)
    head = face or tuple(place[name] for name in ("head",) if name in place)
    neck = () if face else tuple(place[name] for name in ("neck",) if name in place)
    missing = [name for name in (*SHOULDERS, *HIPS) if name not in place]
    if not head:
        missing.append("a keypoint of the face, or the head's top")
    if missing:
        raise DataError(
            f"skeleton {skeleton.name} has no head and body centers: there is no {', no '.join(missing)} among its "
            f"keypoints {', '.join(skeleton.keypoints)}; set model.centers to single"
        )
    left, right = SHOULDERS
    return CenterRules(head, neck, (place[left], place[right]), (place[HIPS[0]], place[HIPS[1]]))


def anatomical_centers(keypoints: Floats, rules: CenterRules, policy: CenterPolicy = "fallback") -> AnatomicalCenters:
    """The centers of persons with keypoints (P, K, 3) x, y, v. Nobody without labelled keypoints has any."""
    labelled = (keypoints[..., 2] > 0) & np.isfinite(keypoints[..., :2]).all(-1)
    points = np.where(labelled[..., None], keypoints[..., :2], np.float32(0))
    has_head = labelled[:, rules.head].any(1)
    shoulders, of_shoulders = _mean(points, labelled, rules.shoulders)
    hips, of_hips = _mean(points, labelled, rules.hips)
    everything, number = _mean(points, labelled, tuple(range(keypoints.shape[1])))
    fallback = policy == "fallback"
    ladder = (
        ("a", (of_shoulders > 0) & (of_hips > 0), (shoulders + hips) / 2),
        ("b", fallback & (of_shoulders == 2), shoulders),
        ("c", fallback & (of_hips == 2), hips),
        ("d", fallback & ~has_head & (number > 0), everything),
    )
    steps, body = np.full(len(keypoints), "", dtype="<U1"), np.zeros_like(shoulders)
    for step, applies, points_of_step in reversed(ladder):
        steps[applies], body[applies] = step, points_of_step[applies]
    head = _mean(points, labelled, (*rules.head, *rules.neck))[0]
    return AnatomicalCenters(np.stack([head, body], axis=1), np.stack([has_head, steps != ""], axis=1), steps)


def labelled_channels(annotated: NDArray[np.bool_], rules: CenterRules | None) -> NDArray[np.bool_]:
    """(K + Q,) which heatmaps a set can teach that labels the keypoints `annotated` (K,); without `rules` Q is 1."""
    if rules is None:
        return np.append(annotated, True)
    head = annotated[list(rules.head)].any()
    torso = annotated[[*rules.shoulders, *rules.hips]].any()
    return np.append(annotated, [head, torso or not head])


def _mean(points: Floats, labelled: NDArray[np.bool_], members: tuple[int, ...]) -> tuple[Floats, NDArray[np.intp]]:
    """(P, 2) mean of the labelled ones of some keypoints, and (P,) how many they are."""
    number = labelled[:, members].sum(1)
    return points[:, members].sum(1) / np.maximum(number, 1, dtype=np.float32)[:, None], number
