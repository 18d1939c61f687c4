"""What lower precision, and doing without the flip test, costs trained models: AP and shifts of keypoints."""

from collections.abc import Callable, Mapping
from pathlib import Path

from posesdk.bundle import open_bundle
from posesdk.labelled_pictures import PictureFiles
from posesdk.manifest import Precision
from posesdk.pipeline import Pipeline, open_pipeline
from posesdk.variants import select_variant
from posesdk.verify import Reference
from posesdk_training.report.grids import Table

__all__ = ["accuracy_table", "open_precision"]

HEADER = (
    *("model", "against", "measured", "AP against", "AP", "difference", "shift, median px", "99 % below", "largest"),
    "people",
)
POINTS = 100
"""AP points in an AP of 1."""

Pairs = Mapping[tuple[str, str, str], tuple[Pipeline, Pipeline]]
"""Model, what is compared with and what is measured by name, and the pipelines of the last two."""


def open_precision(path: Path, precision: Precision, *, flip: bool, threads: int) -> Pipeline:
    """The variant of a bundle for CPUs in that precision, on OpenVINO."""
    bundle = open_bundle(path)
    candidate = select_variant(bundle.manifest, "openvino", "cpu", variant=f"cpu-{precision}")[0]
    decode = bundle.spec.decode.model_copy(update={"flip_test": flip})
    return open_pipeline(bundle, candidate, decode, threads)


def accuracy_table(pairs: Pairs, pictures: PictureFiles, step: Callable[[str], None]) -> Table:
    """AP in points and its difference; shifts in px of the picture of people whom both find above the threshold."""
    rows = []
    references: dict[int, Reference] = {}
    for names, (wanted, measured) in pairs.items():
        step(" ".join((names[0], names[2], "against", names[1])))
        reference = references.setdefault(id(wanted), Reference(wanted, pictures, pictures.labels))
        rows.append((*names, *_figures(reference, measured)))
    return Table(HEADER, tuple(rows))


def _figures(reference: Reference, measured: Pipeline) -> tuple[str, ...]:
    found = reference.verify(measured, timed=0)
    points = ("-", "-", "-")
    if found.accuracy is not None and found.float_accuracy is not None and found.ap_drop is not None:
        before, after = (f"{POINTS * one.stats['AP']:.2f}" for one in (found.float_accuracy, found.accuracy))
        points = before, after, f"{-found.ap_drop:+.2f}"
    moved = found.deviation
    shifts = (f"{shift:.2f}" for shift in (moved.shift_median, moved.shift_p99, moved.shift_max))
    return *points, *shifts, str(moved.people)
