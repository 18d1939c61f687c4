"""Multi-person 2D pose estimation on edge devices."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from posesdk._version import __version__

if TYPE_CHECKING:
    from posesdk.detector import Detector, DetectorInfo
    from posesdk.poses import FrameInfo, Pose, Poses
    from posesdk.skeleton import COCO_17, Skeleton
    from posesdk_runtimes.errors import (
        ArtifactError,
        BundleError,
        DeviceUnavailableError,
        EnvironmentFault,
        MissingDependencyError,
        PoseSDKError,
        RuntimeFault,
        SourceError,
    )

__all__ = [
    "COCO_17",
    "ArtifactError",
    "BundleError",
    "Detector",
    "DetectorInfo",
    "DeviceUnavailableError",
    "EnvironmentFault",
    "FrameInfo",
    "MissingDependencyError",
    "Pose",
    "PoseSDKError",
    "Poses",
    "RuntimeFault",
    "Skeleton",
    "SourceError",
    "__version__",
]

_MODULES = {
    "posesdk.detector": ("Detector", "DetectorInfo"),
    "posesdk.poses": ("FrameInfo", "Pose", "Poses"),
    "posesdk.skeleton": ("COCO_17", "Skeleton"),
    "posesdk_runtimes.errors": (
        "ArtifactError",
        "BundleError",
        "DeviceUnavailableError",
        "EnvironmentFault",
        "MissingDependencyError",
        "PoseSDKError",
        "RuntimeFault",
        "SourceError",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first asked for (PEP 562): importing the package alone stays fast."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
