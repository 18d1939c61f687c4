"""Settings of what a training sample shows, and of the dense targets drawn for it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from posesdk_training.settings.section import Fraction, Positive, PositiveInt, Range, Section

__all__ = ["AugmentConfig", "CropConfig", "OccluderConfig", "TargetConfig"]


class CropConfig(Section):
    """How a sample is cut out of its photo.

    `kind="image"`: around the photo's center, as published: `scale` is the crop side over the short
    side, `shift` the fraction of the crop side by which the center moves. `kind="person"`: with probability `focus`
    around a random labelled person whose size becomes a fraction `person_size` of the crop, else anywhere.
    """

    kind: Literal["image", "person"] = "image"
    scale: Range = (0.75, 1.5)
    shift: Fraction = 0.2
    focus: Fraction = 0.9
    person_size: Range = (0.17, 0.95)
    max_enlargement: Positive = 2.6


class OccluderConfig(Section):
    """People cut out by `posesdk-train synthesize --cutouts` into `folder`, pasted into samples as people in front.

    `folder` is taken from `data.root`.
    `height`: their long side as a fraction of the sample's. Sets with a `supervised_window` are left alone.
    """

    folder: Path
    probability: Fraction = 0.2
    height: tuple[Positive, Positive] = (0.3, 1.1)


class AugmentConfig(Section):
    """Geometric and photometric augmentation. Angles are in degrees."""

    crop: CropConfig = CropConfig()
    rotation: Positive | Literal[0] = 30.0
    rotation_distribution: Literal["uniform", "normal"] = "uniform"
    rotation_probability: Fraction = 1.0
    flip_probability: Fraction = 0.5
    photometric: bool = False
    border: tuple[int, int, int] = (0, 0, 0)
    occluders: OccluderConfig | None = None


class TargetConfig(Section):
    """Dense targets. Sigmas are in cells.

    A person's size is the square root of its box area, or the longer side of the box (`size_measure`). With
    `sigma_per_size` set, the sigma of its heatmaps is that fraction of its size, clipped to `sigma_range`; else it is
    fixed. HigherHRNet's rule (arXiv 1908.10357), 2 cells for 256 net px: the fraction 1/32 of the longer side, clipped
    to 1 and 4. `center_keypoints` names the keypoints whose mean is the person's center
    (at least two of them labelled; else, or when empty, all labelled ones).

    The heatmap loss weighs 1 around what is drawn in any channel (`heatmap_windows: shared`, LOGO-CAP's code) or in the
    channel itself (`channel`, DEKR's), and `background_weight` elsewhere.

    `offset_weight: inverse_diagonal` (DEKR): one over the diagonal, net px, of the box around a person's labelled
    keypoints, or of a square of its size where fewer than three are labelled.

    Models with two centers take head and body instead (`data.anatomical_centers`): `center_policy` says what is done
    where no shoulder or no hip is labelled. "fallback" takes both shoulders or both hips, and as a last resort the mean
    of what is labelled; "strict" has no body center then.
    """

    keypoint_sigma: Positive = 2.0
    center_sigma: Positive = 4.0
    size_measure: Literal["box_area", "long_side"] = "box_area"
    keypoint_sigma_per_size: Positive | None = None
    keypoint_sigma_range: Range = (1.0, 2.0)
    center_sigma_per_size: Positive | None = None
    center_sigma_range: Range = (1.0, 3.0)
    background_weight: Fraction = 0.1
    heatmap_windows: Literal["shared", "channel"] = "shared"
    offset_window: Literal["square", "gaussian"] = "square"
    offset_radius: PositiveInt = 4
    offset_gaussian_level: Fraction = 0.35
    offset_weight: Literal["inverse_sqrt_area", "area", "inverse_size", "inverse_diagonal"] = "inverse_sqrt_area"
    center_keypoints: tuple[str, ...] = ()
    center_from_visible: bool = False
    center_policy: Literal["fallback", "strict"] = "fallback"
    min_center_area: Annotated[float, Field(ge=0)] = 32.0**2
