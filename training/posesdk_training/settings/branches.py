"""Settings of the branches of multi-scale training (DAC, section 3.1 and figure 2).

The same view of a photo is seen at several resolutions, each by a stem of its own and for persons of certain sizes; the
maps of all branches are the same cells. Its other reading sends every input through the deployed stem, and brings the
maps to the same cells afterwards; its baseline, scale augmentation, leaves them at the inputs' own.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from posesdk_training.settings.samples import TargetConfig
from posesdk_training.settings.section import Positive, PositiveInt, Section, Share

__all__ = ["BranchConfig", "BranchName"]

BranchName = Literal["8x", "4x", "2x"]
"""Net px of the branch's input per cell."""

INPUT_SCALES: dict[BranchName, float] = {"8x": 2.0, "4x": 1.0, "2x": 0.5}
SPREADS: dict[BranchName, float] = {"8x": 0.75, "4x": 1.0, "2x": 1.5}
"""Width of a branch's kernels over that of the 4x branch: 1.5, 2 and 3 cells for keypoints, 3, 4 and 6 for centers."""
DEFAULTS: dict[str, dict[str, Any]] = {
    "8x": {"area_range": (0.0, 128.0**2), "weight": 0.5},
    "2x": {"area_range": (64.0**2, None), "weight": 0.5},
}
"""For an input of 512; the paper gives no numbers. What keeps its own cells learns all persons alike."""


class BranchConfig(Section):
    """A branch: "8x" sees the view at twice the sample's side, "4x" at its side, "2x" at half of it.

    Sigmas (cells) and `offset_radius` are, where they are not given, 0.75, 1 and 1.5 times those of `targets`; where
    `targets` takes sigmas by the person's size, these and their limits are scaled alike. Persons whose box area lies
    outside of `area_range` (above the first, up to the second, None without limit; square net px of the 4x view) are
    ignored, not negatives. `weight` multiplies the branch's losses. `zoom`: the side of what the branch sees, in those
    of the 4x view; 2 shows persons half as large. A branch may be given by its name alone.

    `stem: 4x` sends the branch's input through the deployed stem, whose maps have more cells, or fewer; they are
    resampled to the common ones. With `cells: own` they keep theirs, at which targets are drawn as the 4x branch's are.
    """

    name: BranchName
    keypoint_sigma: Positive | None = None
    center_sigma: Positive | None = None
    offset_radius: PositiveInt | None = None
    area_range: tuple[Share, float | None] = (0.0, None)
    weight: Positive = 1.0
    zoom: Positive = 1.0
    stem: Literal["own", "4x"] = "own"
    cells: Literal["common", "own"] = "common"

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, value: Any) -> Any:
        tree = {"name": value} if isinstance(value, str) else value
        if not isinstance(tree, dict) or tree.get("cells") == "own":
            return tree
        return {**DEFAULTS.get(str(tree.get("name")), {}), **tree}

    @model_validator(mode="after")
    def _check(self) -> "BranchConfig":
        low, high = self.area_range
        if high is not None and high <= low:
            raise ValueError(f"branch {self.name}: area_range must rise, got {low} to {high}")
        if self.cells == "own" and self.stem == "own":
            raise ValueError(f"branch {self.name}: a stem of its own gives the common cells; set stem to 4x, or cells")
        return self

    @property
    def input_scale(self) -> float:
        """The side of the branch's input over that of the sample."""
        return INPUT_SCALES[self.name]

    @property
    def used_stem(self) -> BranchName:
        """The stem that the branch's input goes through."""
        return "4x" if self.stem == "4x" else self.name

    @property
    def grid_scale(self) -> float:
        """The side of the map that is learned over that of the 4x branch's."""
        return self.input_scale if self.cells == "own" else 1.0

    def supervises(self, areas: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(P,) whether persons with box areas (P,), square net px of the 4x view, are the branch's."""
        low, high = self.area_range
        return np.asarray((areas > low) & (areas <= (np.inf if high is None else high)))

    def targets(self, base: TargetConfig) -> TargetConfig:
        """The targets of the branch, where `base` are those of the run."""
        spread = 1.0 if self.cells == "own" else SPREADS[self.name]
        keypoint_sigma = self.keypoint_sigma or spread * base.keypoint_sigma
        center_sigma = self.center_sigma or spread * base.center_sigma
        keypoint_spread, center_spread = keypoint_sigma / base.keypoint_sigma, center_sigma / base.center_sigma
        return base.model_copy(
            update={
                "keypoint_sigma": keypoint_sigma,
                "center_sigma": center_sigma,
                "keypoint_sigma_per_size": _scaled(base.keypoint_sigma_per_size, keypoint_spread),
                "center_sigma_per_size": _scaled(base.center_sigma_per_size, center_spread),
                "keypoint_sigma_range": tuple(keypoint_spread * limit for limit in base.keypoint_sigma_range),
                "center_sigma_range": tuple(center_spread * limit for limit in base.center_sigma_range),
                "offset_radius": self.offset_radius or max(1, round(spread * base.offset_radius)),
            }
        )


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value
