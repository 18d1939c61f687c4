"""The error tree of the SDK.

It lives on the lowest floor so that every layer can raise and catch it::

    PoseSDKError
    ├── EnvironmentFault            exit code 3
    │   ├── MissingDependencyError    a library that was asked for is not installed
    │   ├── DeviceUnavailableError    a device that was asked for by name cannot be used
    │   └── EngineBuildError          a TensorRT engine cannot be built on this machine
    ├── ArtifactError               exit code 4
    │   ├── BundleError               a bundle that cannot be opened, or does not hold what its manifest says
    │   └── CheckpointError           a checkpoint that cannot be read, or does not fit its model
    ├── GateError                   exit code 5, an accuracy or parity gate failed
    ├── SourceError                 exit code 6, an image, video, camera or stream that cannot be read
    ├── RuntimeFault                exit code 1, an inference backend failed on a loaded model
    └── DataError                   exit code 1, a data set or an annotation that cannot be used

Every message says what was being done, with which file or value, and what to do next.
"""

from typing import ClassVar

__all__ = [
    "ArtifactError",
    "BundleError",
    "CheckpointError",
    "DataError",
    "DeviceUnavailableError",
    "EngineBuildError",
    "EnvironmentFault",
    "GateError",
    "MissingDependencyError",
    "PoseSDKError",
    "RuntimeFault",
    "SourceError",
]


class PoseSDKError(Exception):
    """Base of every error that the SDK raises for faults of the world; callers' mistakes are Value- and TypeError."""

    exit_code: ClassVar[int] = 1


class EnvironmentFault(PoseSDKError):
    """A library or a device is missing."""

    exit_code: ClassVar[int] = 3


class MissingDependencyError(EnvironmentFault):
    """A library that was asked for is not installed; the message names the command that installs it."""


class DeviceUnavailableError(EnvironmentFault):
    """A device that was asked for by name cannot be used."""


class EngineBuildError(EnvironmentFault):
    """A TensorRT engine cannot be built on this machine; `reason` is one word for programs.

    "memory", "timeout", "crash", "parse", "precision", "shapes", "write" or "build".
    """

    def __init__(self, message: str, reason: str = "build") -> None:
        super().__init__(message)
        self.reason = reason


class ArtifactError(PoseSDKError):
    """A model artefact is broken."""

    exit_code: ClassVar[int] = 4


class BundleError(ArtifactError):
    """A bundle cannot be opened, or does not hold what its manifest says."""


class CheckpointError(ArtifactError):
    """A checkpoint cannot be read, or does not fit its model."""


class GateError(PoseSDKError):
    """A parity or accuracy gate failed."""

    exit_code: ClassVar[int] = 5


class SourceError(PoseSDKError):
    """An image, video, camera or stream cannot be read."""

    exit_code: ClassVar[int] = 6


class RuntimeFault(PoseSDKError):
    """An inference backend failed on a loaded model."""


class DataError(PoseSDKError):
    """A data set or an annotation cannot be used."""
