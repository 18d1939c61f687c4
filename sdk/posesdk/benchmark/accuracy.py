"""How good an entry is: measured on labelled pictures, or as its bundle records it."""

from dataclasses import asdict, dataclass
from pathlib import Path

from posesdk.benchmark.entries import Entry
from posesdk.labelled_pictures import PictureFiles, read_pictures
from posesdk.manifest import FLOAT_VARIANT
from posesdk.skeleton import Skeleton
from posesdk.verify import POINTS, OnPicture, Reference
from posesdk_runtimes.errors import SourceError

__all__ = ["AP", "Accuracy", "Labelled", "measured_accuracy", "recorded_accuracy"]

AP = "AP"


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labelled pictures: a COCO file, the folder of its pictures where that is not beside it, the first N of them."""

    annotations: Path
    images: Path | None = None
    limit: int | None = None

    def read(self, skeleton: Skeleton) -> PictureFiles:
        """Those for models of a skeleton. Raises SourceError, also where nothing is labelled."""
        pictures = read_pictures(self.annotations, skeleton, images=self.images, limit=self.limit)
        if pictures.labels is None:
            raise SourceError(f"{self.annotations} labels nobody, so there is no AP; name a COCO keypoint file")
        return pictures


@dataclass(frozen=True, slots=True)
class Accuracy:
    """COCO keypoint figures in points (hundredths), on which data, `measured` here or recorded for `variant`."""

    metrics: dict[str, float]
    dataset: str
    images: int
    variant: str
    measured: bool

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def measured_accuracy(entry: Entry, pictures: PictureFiles, on_picture: OnPicture) -> Accuracy:
    """Its figures on these pictures. Raises SourceError for a picture that cannot be read, RuntimeFault."""
    pipeline = entry.pipeline()
    try:
        found = Reference(pipeline, pictures, pictures.labels).found(pipeline.spec, on_picture)[1]
    finally:
        pipeline.close()
    assert found is not None  # the pictures are labelled
    metrics = {name: POINTS * value for name, value in found.stats.items()}
    return Accuracy(metrics, pictures.source.name, len(pictures), entry.candidate.variant.name, measured=True)


def recorded_accuracy(entry: Entry) -> Accuracy | None:
    """What the manifest has of its variant, else of the trained model; None where it has neither."""
    for name in (entry.candidate.variant.name, FLOAT_VARIANT):
        for one in entry.bundle.manifest.accuracy:
            if one.variant == name and AP in one.metrics:
                metrics = {metric: POINTS * value for metric, value in one.metrics.items()}
                return Accuracy(metrics, one.dataset, one.images, name, measured=False)
    return None
