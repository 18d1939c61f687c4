"""`posesdk verify`: what it prints and writes."""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import cv2
import numpy as np

from posesdk._version import __version__
from posesdk.bundle import Bundle
from posesdk.labelled_pictures import PictureFiles
from posesdk.outputs import STDOUT, writing
from posesdk.progress import counting
from posesdk.speed import Speed
from posesdk.terminal import show_line, show_text
from posesdk.variants import Candidate
from posesdk.verify import POINTS, Gate, Verification
from posesdk.verify_bundle import Checked, float_candidate, verify_bundle
from posesdk_runtimes.errors import EnvironmentFault, GateError, PoseSDKError
from posesdk_runtimes.registry import available_runtimes

__all__ = ["VerifyRequest", "check_report_path", "run_verify", "write_report"]

SCHEMA_VERSION = 1
HEADINGS = (
    *("variant", "on", "AP", "AR", "OKS", "lost", "new"),
    *("px median", "p99", "largest", "score", "trunk ms", "adapt ms", "gate"),
)
TEXT_COLUMNS = 2
"""Columns that start at the left; numbers end at the right."""


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """What is verified on which pictures, and where the JSON goes; None for nowhere, "-" for standard output."""

    bundle: Bundle
    candidates: tuple[Candidate, ...]
    pictures: PictureFiles
    gate: Gate
    output: Path | None = None
    threads: int | None = None


def check_report_path(output: Path | None) -> None:
    """Before the work: raises PoseSDKError for a place where no report can be written."""
    if output is None or output == STDOUT:
        return
    if output.is_dir():
        raise PoseSDKError(f"cannot write {output}: it is a folder; give the name of a file")
    if output.is_file() or not output.exists():
        folder = next(folder for folder in output.absolute().parents if folder.exists())
        with writing(output), TemporaryFile(dir=folder):
            pass


def run_verify(request: VerifyRequest) -> None:
    """Does the work and shows a table. Raises GateError where a variant misses the gate, EnvironmentFault where
    nothing can run, and as `verify_bundle`.
    """
    bundle, used = request.bundle, float_candidate(request.bundle.manifest)
    others = tuple(candidate for candidate in request.candidates if candidate != used)
    checked = list(
        verify_bundle(
            bundle,
            others or request.candidates,
            request.pictures,
            request.gate,
            counting=counting,
            threads=request.threads,
        )
    )
    for line in _lines(checked, request.pictures, used):
        show_line(line, err=request.output == STDOUT)
    if request.output is not None:
        write_report(request.output, _report(request, checked, used))
    if all(one.skipped for one in checked):
        raise EnvironmentFault(f"bundle {bundle.path} cannot be verified here: {checked[0].skipped}")
    if failed := [one for one in checked if one.fault is not None]:
        first = failed[0].candidate
        raise GateError(
            f"{len(failed)} of {len(checked)} variants miss the gate, first {first.variant.name} with {first.runtime} "
            f"on {first.device}: {failed[0].fault}; use another variant, or convert again with other calibration images"
        )


def _lines(checked: Sequence[Checked], pictures: PictureFiles, used: Candidate) -> Iterator[str]:
    people = next((one.found.deviation.people for one in checked if one.found is not None), 0)
    yield (
        f"{len(pictures)} pictures of {pictures.source}, {people} people found by the float model "
        f"({used.variant.name} with {used.runtime} on {used.device})"
    )
    rows = [HEADINGS, *(_row(one.candidate, one.found, one.fault) for one in checked if one.found is not None)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    last = len(HEADINGS) - 1
    for row in rows if len(rows) > 1 else ():
        cells = [
            cell.ljust(width) if column < TEXT_COLUMNS or column == last else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
    if len(rows) > 1:
        yield "in brackets: compared with the float model; ms of a variant on a CPU are processor time"
    if any(one.found is not None and one.found.is_empty for one in checked):
        yield "nobody: the float model finds nobody, so nothing is shown; name pictures with people"
    for one in checked:
        if one.found is None:
            place = f"{one.candidate.variant.name} with {one.candidate.runtime} on {one.candidate.device}"
            yield f"skipped {place}: {one.skipped}" if one.skipped else f"FAILED {place}: {one.fault}"


def _row(candidate: Candidate, found: Verification, fault: str | None) -> tuple[str, ...]:
    deviation = found.deviation
    speeds = ["-", "-"]
    graphs = ("trunk_cpu", "adapt_cpu") if candidate.device == "cpu" else ("trunk", "adapt")
    if found.speed is not None and found.float_speed is not None:
        speeds = [_speed(name, found.speed, found.float_speed) for name in graphs]
    return (
        candidate.variant.name,
        f"{candidate.runtime} {candidate.device}",
        _figure("AP", found),
        _figure("AR", found),
        f"{deviation.mean_oks:.3f}",
        str(deviation.missing),
        str(deviation.extra),
        f"{deviation.shift_median:.2f}",
        f"{deviation.shift_p99:.2f}",
        f"{deviation.shift_max:.2f}",
        f"{deviation.score_max:.4f}",
        *speeds,
        "MISSED" if fault is not None else "nobody" if found.is_empty else "ok",
    )


def _figure(name: str, found: Verification) -> str:
    """A figure in points, and how far it is from the float model's."""
    if found.accuracy is None or found.float_accuracy is None or name not in found.accuracy.stats:
        return "-"
    ours, theirs = (POINTS * one.stats[name] for one in (found.accuracy, found.float_accuracy))
    return f"{ours:.2f} ({ours - theirs:+.2f})"


def _speed(graph: str, ours: Speed, theirs: Speed) -> str:
    """Milliseconds, and how many times as fast as the float model."""
    spent, before = getattr(ours, graph), getattr(theirs, graph)
    return f"{spent:.1f} ({before / spent:.1f}x)" if spent and before else "-"


def write_report(output: Path, report: Mapping[str, Any]) -> None:
    """Writes JSON to a file, whole or not at all, or to standard output for "-"; a pipe or device is written into.

    Raises PoseSDKError.
    """
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    if output == STDOUT:
        show_text(text)
        return
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.is_symlink() or (output.exists() and not output.is_file()):  # a file in its place would end it
            output.write_text(text, encoding="utf-8")
            return
        part = output.with_name(f".{output.name}.{os.getpid()}")
        part.write_text(text, encoding="utf-8")
        os.replace(part, output)


def _report(request: VerifyRequest, checked: Sequence[Checked], used: Candidate) -> dict[str, Any]:
    manifest, pictures = request.bundle.manifest, request.pictures
    backends = {info.name: info.version for info in available_runtimes() if info.version is not None}
    return {
        "v": SCHEMA_VERSION,
        "bundle": {"id": manifest.id, "version": manifest.version, "path": str(request.bundle.path)},
        "data": {
            "source": str(pictures.source),
            "images": len(pictures),
            "labelled": pictures.labels is not None,
            "people": None if pictures.labels is None else sum(int((~one.ignored).sum()) for one in pictures.labels),
        },
        "float": {"variant": used.variant.name, "runtime": used.runtime, "device": used.device},
        "gate": {
            "max_ap_drop": request.gate.max_ap_drop,
            "min_oks": request.gate.least_oks(labelled=pictures.labels is not None),
            "max_lost": request.gate.max_lost,
        },
        "machine": {"processor": platform.machine(), "system": platform.system(), "cores": os.cpu_count()},
        "versions": {
            "posesdk": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            **backends,
        },
        "passed": all(one.fault is None for one in checked),
        "variants": [one.to_dict() for one in checked],
    }
