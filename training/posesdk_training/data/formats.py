"""Formats of annotation files: all of them become one COCO tree, with what the format alone knows."""

from dataclasses import dataclass
from typing import Any, Literal

from posesdk.skeleton import COCO_17, CROWDPOSE_14, Skeleton
from posesdk_training.data.ochuman import coco_tree, is_published_ochuman

__all__ = ["BOX_AREA", "CROWDPOSE_AREA", "AnnotationTree", "Format", "as_coco"]

Format = Literal["auto", "coco", "crowdpose", "ochuman"]

Tree = dict[str, Any]

CROWDPOSE_AREA = 0.53
"""Area of a person, as a part of its box, by which CrowdPose is evaluated: its files give none."""
BOX_AREA = 1.0
"""As OCHuman takes it, and COCO's own results without a mask."""


@dataclass(frozen=True, slots=True)
class AnnotationTree:
    """A COCO tree, the area of a person without one as a part of its box, and the skeleton if the format has one.

    `open_crowds`: crowds are boxes, which can span the photo, with people in them who are labelled: in CrowdPose.
    """

    tree: Tree
    box_area: float
    skeleton: Skeleton | None
    open_crowds: bool = False


def as_coco(tree: Tree, form: Format = "auto") -> AnnotationTree:
    """An annotation file's content as a COCO tree.

    "auto": CrowdPose where images have a `crowdIndex`, OCHuman's own file where images hold their annotations, else
    COCO. Raises ValueError for content that is none of them, KeyError, TypeError or AttributeError for malformed parts.
    """
    if not isinstance(tree, dict):
        raise ValueError(f"the top level is a {type(tree).__name__}")
    if form in ("auto", "ochuman") and is_published_ochuman(tree):
        return AnnotationTree(coco_tree(tree), BOX_AREA, COCO_17)
    if form == "crowdpose" or (form == "auto" and any("crowdIndex" in entry for entry in tree["images"][:1])):
        return AnnotationTree(tree, CROWDPOSE_AREA, CROWDPOSE_14, open_crowds=True)
    return AnnotationTree(tree, BOX_AREA, COCO_17 if form == "ochuman" else None)
