"""What a conversion measured: the content of its report."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from posesdk import __version__
from posesdk.manifest import FLOAT_VARIANT, Accuracy, Variant
from posesdk.spec import ModelSpec
from posesdk.verify import Gate
from posesdk_converters.calibration import CalibrationImages
from posesdk_converters.nvidia.rtx import RtxCheck
from posesdk_converters.target import portable_variant
from posesdk_converters.verification.judge import Judged
from posesdk_converters.verification.parity import Parity
from posesdk_converters.verification.sensitivity import LayerError

__all__ = ["TOOLS", "Record", "accuracy_of", "describe_calibration", "file_size", "tool_versions", "write_record"]

PORTABLE_FP32 = portable_variant(adapt=False, input_size=None).name
TOOLS = (
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "litert-torch",
    "ai-edge-quantizer",
    "ai-edge-litert",
    "tensorrt-rtx",
    "opencv-python-headless",
)
"""What a bundle depends on besides its checkpoint."""


@dataclass(frozen=True, eq=False)
class Record:
    """One conversion. `photos` says in words what the variants were run on, `sizes` are the bytes of each variant.

    `ranking` is empty where no int8 variant missed the gate at first, `engines` where nothing is for TensorRT, or
    TensorRT-RTX is not installed.
    """

    spec: ModelSpec
    gate: Gate
    photos: str
    labelled: bool
    calibration: CalibrationImages | None
    judged: tuple[Judged, ...]
    sizes: dict[str, int]
    parities: tuple[Parity, ...]
    ranking: tuple[LayerError, ...]
    engines: tuple[RtxCheck, ...]
    versions: dict[str, str]
    notes: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: all but the times, which differ from run to run."""
        return {
            "model": self.spec.name,
            "photos": self.photos,
            "gate": asdict(self.gate),
            "calibration": None if self.calibration is None else describe_calibration(self.calibration),
            "variants": [_variant_figures(one, self.sizes[one.variant.name]) for one in self.judged],
            "parity": [parity.to_dict() for parity in self.parities],
            "sensitivity": [asdict(entry) for entry in self.ranking],
            "engines": [
                {"file": check.file, "precision": check.precision, "built": check.passed, "errors": list(check.errors)}
                for check in self.engines
            ],
            "versions": self.versions,
            "notes": self.notes,
        }


def write_record(record: Record, path: Path) -> None:
    """Writes the record as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record.to_dict(), indent=1) + "\n", encoding="utf-8")


def file_size(variant: Variant, folder: Path) -> int:
    """Bytes of the graphs of a variant, with the files of weights beside them."""
    graphs = [folder / name for name in (variant.trunk, variant.adapt) if name is not None]
    return sum(path.stat().st_size for graph in graphs for path in graph.parent.glob(f"{graph.stem}.*"))


def accuracy_of(record: Record, *, known: Sequence[Accuracy] = ()) -> tuple[Accuracy, ...]:
    """What goes into the manifest: AP and its like of every variant, and of the float model unless it is `known`."""
    entries = []
    for one in record.judged:
        found = one.verification
        if found is None or found.accuracy is None:
            continue
        # The portable graphs are the trained model in another form: parity holds them to it.
        float_model = one.variant.name == PORTABLE_FP32
        for name in (one.variant.name, FLOAT_VARIANT) if float_model else (one.variant.name,):
            if name == FLOAT_VARIANT and any(entry.variant == FLOAT_VARIANT for entry in known):
                continue
            entries.append(
                Accuracy(
                    variant=name,
                    dataset=record.photos,
                    images=found.accuracy.images,
                    metrics={key: round(value, 6) for key, value in found.accuracy.stats.items()},
                    note=f"{found.accuracy.persons} labelled persons; with {one.runtime}, before it was packed",
                )
            )
    return tuple(entries)


def describe_calibration(images: CalibrationImages) -> str:
    """One line for people, which tells two sets apart."""
    return f"{len(images.paths)} images of {images.source.name}, sha256 {images.sha256[:16]}"


def tool_versions() -> dict[str, str]:
    """The versions of what made the bundle, of those that are installed."""
    found = {"posesdk": __version__}
    for name in TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _variant_figures(one: Judged, size: int) -> dict[str, Any]:
    variant = one.variant
    figures = {} if one.verification is None else one.verification.to_dict()
    for times in ("ms", "float_ms"):
        figures.pop(times, None)
    return {
        "name": variant.name,
        "precision": variant.precision,
        "runtime": one.runtime,
        "input_size": variant.input_size,
        "bytes": size,
        "float_layers": list(variant.float_layers),
        "fault": one.fault,
        "note": one.note,
        **figures,
    }
