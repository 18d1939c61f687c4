"""The backbone that a spec asks for."""

from collections.abc import Sequence

from posesdk.spec import BackboneSpec, EdgeBackboneSpec
from posesdk_training.models.edge import EdgeBackbone
from posesdk_training.models.hrnet import HRNet
from posesdk_training.models.stems import Branch

__all__ = ["build_backbone"]


def build_backbone(spec: BackboneSpec, branches: Sequence[Branch] = ()) -> EdgeBackbone | HRNet:
    """A freshly initialised backbone, with the stems of the `branches` that it is trained with."""
    return EdgeBackbone(spec, branches) if isinstance(spec, EdgeBackboneSpec) else HRNet(spec, branches)
