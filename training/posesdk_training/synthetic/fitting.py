"""Which pose, seen how, comes near labelled keypoints."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.camera import Camera
from posesdk_training.synthetic.cast import Cast
from posesdk_training.synthetic.possible import possible_poses
from posesdk_training.synthetic.rig import posed_bones
from posesdk_training.synthetic.rotations import axis_rotation

__all__ = ["Fit", "best_fit", "with_fitting_limbs"]

Floats = NDArray[np.float64]

CANDIDATES = 3000


@dataclass(frozen=True, slots=True)
class Fit:
    """A pose of the library by its number, how it faces (`yaw`, radians), px per dm and the pelvis' place in px.

    `error` is the root mean square distance to the labelled keypoints over the extent of these.
    """

    pose: int
    yaw: float
    scale: float
    pelvis: tuple[float, float]
    error: float


def best_fit(rng: np.random.Generator, cast: Cast, camera: Camera, labelled: Floats) -> Fit:
    """The best of CANDIDATES poses and views for labelled keypoints (17, 3), px of the picture.

    Distances are taken in weak perspective, with the best size and place of each candidate.
    """
    known = labelled[:, 2] > 0
    poses = rng.integers(len(cast.figures), size=CANDIDATES)
    yaws = rng.uniform(-np.pi, np.pi, CANDIDATES)
    view = camera.rotation[:2] * np.array([[1.0], [-1.0]])  # to px, x right and y down
    seen = cast.figures[poses][:, known] @ (view @ axis_rotation("y", yaws)).transpose(0, 2, 1)  # (N, L, 2) dm
    target = labelled[known, :2]
    seen_mean, target_mean = seen.mean(1), target.mean(0)
    seen, target = seen - seen_mean[:, None], target - target_mean
    spread = np.maximum((seen**2).sum((1, 2)), 1e-6)
    scales = np.maximum((seen * target).sum((1, 2)) / spread, 1e-3)
    errors = (target**2).sum() - scales**2 * spread
    errors[scales <= 1e-3] = np.inf
    best = int(errors.argmin())
    pelvis = target_mean - scales[best] * seen_mean[best]
    extent = max(1.0, float(np.ptp(target, axis=0).max()))
    error = float(np.sqrt(max(0.0, errors[best]) / known.sum()) / extent)
    return Fit(int(poses[best]), float(yaws[best]), float(scales[best]), (float(pelvis[0]), float(pelvis[1])), error)


def with_fitting_limbs(cast: Cast, camera: Camera, labelled: Floats, fit: Fit) -> NDArray[np.float32]:
    """(B, 3, 3) turns of the fitted pose, with arms and legs of other poses that come nearer to `labelled` (17, 3).

    A limb is exchanged where the result is still possible.
    """
    view = fit.scale * (camera.rotation[:2] * np.array([[1.0], [-1.0]])) @ axis_rotation("y", fit.yaw)
    turns: NDArray[np.float32] = cast.library.turns[fit.pose]
    for limb in cast.limbs:
        known = labelled[limb.keypoints, 2] > 0
        if known.sum() < 2:
            continue
        # Every pose's limb, carried by this pose's trunk, in px of the picture: (P, L, 2).
        carried = limb.local[:, known] @ limb.turned[fit.pose].T + limb.origins[fit.pose]
        gaps = carried @ view.T + np.array(fit.pelvis) - labelled[limb.keypoints[known], :2]
        other = int((gaps**2).sum((1, 2)).argmin())
        changed = turns.copy()
        changed[limb.bones] = cast.library.turns[other][limb.bones]
        if possible_poses(cast.rig, posed_bones(cast.rig, cast.heads, changed[None].astype(np.float64))[1])[0]:
            turns = changed
    return turns
