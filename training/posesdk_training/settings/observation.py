"""Settings of the looks at a model while it is trained."""

from pathlib import Path

from posesdk_training.settings.section import PositiveInt, Section

__all__ = ["PreviewConfig", "ValidationConfig"]


class PreviewConfig(Section):
    """Predictions on the first `count` of fixed pictures (a folder, or files), drawn every so many steps.

    The paths are taken from `data.root`.
    """

    images: Path | tuple[Path, ...]
    every: PositiveInt = 2000
    count: PositiveInt = 8


class ValidationConfig(Section):
    """AP on a labelled set, of its first `limit` images, every so many steps; the best weights are kept.

    The paths are taken from `data.root`.
    """

    annotations: Path
    images: Path
    every: PositiveInt = 5000
    limit: PositiveInt | None = None
