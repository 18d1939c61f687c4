"""Multi-person 2D pose estimation on edge devices."""

from posesdk._version import __version__

__all__ = ["__version__"]
