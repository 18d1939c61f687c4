"""The manifest of a bundle that is being made."""

import datetime
import json
import os
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from posesdk.bundle import build_manifest_files
from posesdk.manifest import Accuracy, Licence, Manifest
from posesdk_converters.request import Request
from posesdk_converters.verification.record import Record, accuracy_of, describe_calibration
from posesdk_runtimes.errors import ArtifactError, SourceError
from posesdk_training.checkpoint import Checkpoint

__all__ = ["TRAINING_DATA_KEY", "WEIGHTS_LICENCE_KEY", "make_manifest", "read_accuracy"]

CODE_LICENCE = "Apache-2.0"
WEIGHTS_LICENCE_KEY, TRAINING_DATA_KEY = "weights_licence", "training_data"
"""Metadata of a checkpoint that goes into the manifest's licence; the data sets are separated by semicolons."""


def make_manifest(
    checkpoint: Checkpoint, request: Request, record: Record, folder: Path, known: tuple[Accuracy, ...]
) -> Manifest:
    """The manifest of the files in `folder`, whose variants are those of `record`; `known` accuracy stands first."""
    notes = dict(checkpoint.metadata)
    weights = notes.pop(WEIGHTS_LICENCE_KEY, "not stated")
    data = [name.strip() for name in notes.pop(TRAINING_DATA_KEY, "").split(";")]
    if record.calibration is not None:
        notes["calibration"] = describe_calibration(record.calibration)
    notes["converter"] = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return Manifest(
        id=record.spec.name,
        version=request.version,
        model=record.spec,
        created=_time_of_sources(),
        variants=tuple(one.variant for one in record.judged),
        files=build_manifest_files(folder),
        accuracy=(*known, *accuracy_of(record, known=known)),
        licence=Licence(code=CODE_LICENCE, weights=weights, training_data=tuple(name for name in data if name)),
        provenance={**notes, **record.notes},
    )


def read_accuracy(path: Path | None) -> tuple[Accuracy, ...]:
    """What `posesdk-train evaluate --accuracy` wrote; nothing for None.

    Raises SourceError for a file that cannot be read, ArtifactError for one of other content.
    """
    if path is None:
        return ()
    try:
        content = json.loads(path.read_bytes())
        entries = content if isinstance(content, list) else [content]
        return TypeAdapter(tuple[Accuracy, ...]).validate_python(entries)
    except OSError as error:
        raise SourceError(f"accuracy {path}: cannot be read ({error.strerror}); check the path") from error
    except (ValidationError, ValueError) as error:
        raise ArtifactError(
            f"accuracy {path}: not a list of objects with variant, dataset, images and metrics ({error}); "
            "give a file that `posesdk-train evaluate --accuracy` wrote"
        ) from error


def _time_of_sources() -> str | None:
    """The time in $SOURCE_DATE_EPOCH, the convention of reproducible builds; no time without it: equal checkpoints and
    tools give equal bundles."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not seconds.isdigit():
        return None
    return datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
