"""The report of a conversion for people: a Markdown page, its figures as JSON, pictures of the worst cases."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from posesdk.speed import Speed
from posesdk_converters.verification.judge import Judged
from posesdk_converters.verification.photos import Photos
from posesdk_converters.verification.record import Record, describe_calibration, write_record
from posesdk_converters.verification.worst_cases import draw_worst_cases

__all__ = ["PAGE", "table_of", "text_table", "warnings_of", "write_report"]

HEADER = (
    "variant",
    "with",
    "input",
    "MiB",
    "AP",
    "drop",
    "shift median / p99 / max px",
    "mean OKS",
    "missing / extra of people",
    "ms trunk",
    "ms adapt",
    "gate",
)
SHORT = {"variant": "variant", "MiB": "MiB", "AP": "AP", "drop": "drop", "mean OKS": "OKS", "ms trunk": "trunk ms"}
SHORT |= {"ms adapt": "adapt ms", "gate": "gate"}
"""Columns for a terminal of 80 columns, and their titles there."""
PAGE = "report.md"
MANY_FLOAT = 0.2
"""Part of the layers: with more of them in float, int8 is hardly smaller or quicker than float is."""
NOBODY = "nobody found"
"""In place of "passed" where the float model finds nobody."""


def write_report(record: Record, photos: Photos, folder: Path) -> None:
    """Writes `report.md`, `conversion.json`, `times.json` and pictures into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    write_record(record, folder / "conversion.json")
    times = {one.variant.name: _times(one) for one in record.judged}
    (folder / "times.json").write_text(json.dumps(times, indent=1) + "\n", encoding="utf-8")
    pictures = draw_worst_cases(record, photos, folder)
    lines = [*_page(record), "", *_pictures(pictures)]
    (folder / PAGE).write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def table_of(record: Record) -> list[tuple[str, ...]]:
    """One row for each variant, after HEADER; what was not measured is a dash."""
    return [HEADER, *(_row(one, record) for one in record.judged)]


def text_table(record: Record) -> Iterator[str]:
    """The most important columns for a terminal."""
    head, *rows = table_of(record)
    columns = [head.index(name) for name in SHORT]
    cells = [list(SHORT.values()), *([row[index].split(":")[0] for index in columns] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    for first, *numbers, last in cells:
        padded = [
            first.ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=False)),
        ]
        yield "  ".join([*padded, last])


def _page(record: Record) -> Iterator[str]:
    yield f"# Conversion of {record.spec.name}"
    yield ""
    yield f"Every variant was run on {record.photos} and compared with the float model at the same input size."
    if record.calibration is not None:
        yield f"Calibrated on {describe_calibration(record.calibration)}."
    yield ""
    yield from _markdown(table_of(record))
    yield ""
    yield "Drop: AP points below the float model. Shift: of a keypoint, in px of the image."
    yield "Times: median of a picture, ms of processor time in all threads; in brackets: compared with the float model."
    yield f"Gate: {_gate(record)}."
    yield ""
    yield from (f"- **{line}**" for line in warnings_of(record))
    for one in record.judged:
        if one.variant.float_layers:
            yield f"- {one.variant.name} keeps in float: {', '.join(one.variant.float_layers)}"
    yield from _keypoints(record)
    yield from _parity(record)
    yield from _engines(record)
    yield from _sensitivity(record)
    yield from ["", "## Made with", ""]
    yield ", ".join(f"{name} {version}" for name, version in record.versions.items())
    for name, value in record.notes.items():
        yield f"- {name}: {value}"


def warnings_of(record: Record) -> Iterator[str]:
    """What a reader of the figures has to know before he trusts them."""
    for one in record.judged:
        if one.note:
            yield f"{one.variant.name} was NOT run here: {one.note}"
    for one in record.judged:  # without a ranking, nothing was put back to float
        count, layers = len(one.variant.float_layers), len(record.ranking)
        if layers and one.fault is None and count > MANY_FLOAT * layers:
            yield (
                f"{one.variant.name} passes only with {count} of {layers} layers in float, so there is little of int8 "
                "in it; calibrate with pictures like those of your cameras"
            )
    empty = [one.variant.name for one in record.judged if one.verification is not None and one.verification.is_empty]
    if empty:
        yield (
            f"the float model finds nobody in {record.photos}, so nothing is shown of {', '.join(empty)}; verify with "
            "pictures of people: --evaluate, --calibration or --golden"
        )


def _gate(record: Record) -> str:
    """What was asked of every variant."""
    gate, parts = record.gate, []
    if record.labelled:
        parts.append(f"at most {gate.max_ap_drop:g} AP points below the float model")
    least = gate.least_oks(labelled=record.labelled)
    if least is not None:
        parts.append(f"a mean OKS of {least:g} with its poses")
    parts.append(f"at most {gate.max_lost:.0%} of its people carried over the score threshold in one direction")
    return ", ".join(parts)


def _keypoints(record: Record) -> Iterator[str]:
    measured = [one for one in record.judged if one.verification is not None]
    if not measured:
        return
    yield from ["", "## Shift of each keypoint, median / p99 px", ""]
    rows = [("keypoint", *(one.variant.name for one in measured))]
    for name in record.spec.skeleton.keypoints:
        cells = []
        for one in measured:
            shift = one.verification.deviation.keypoints[name] if one.verification else {}
            cells.append(f"{shift['median']:.2f} / {shift['p99']:.1f}")
        rows.append((name, *cells))
    yield from _markdown(rows)


def _parity(record: Record) -> Iterator[str]:
    if not record.parities:
        return
    yield from ["", "## Float variants against torch", ""]
    for parity in record.parities:
        yield (
            f"- {parity.variant} on {parity.runtime}: {parity.within:.2%} of {parity.keypoints} keypoints within "
            f"0.05 px, largest error {parity.max_px:.2g} px, maps {parity.max_map:.1e}"
        )


def _engines(record: Record) -> Iterator[str]:
    if not record.engines:
        return
    yield from ["", "## Engines built by TensorRT-RTX, without a GPU", ""]
    rows: list[tuple[str, ...]] = [("file", "precision", "built", "engine MiB", "s")]
    for check in record.engines:
        built = "yes" if check.passed else "; ".join(check.errors)
        size, seconds = ("-" if value is None else f"{value:.1f}" for value in (check.engine_mib, check.seconds))
        rows.append((check.file, check.precision, built, size, seconds))
    yield from _markdown(rows)


def _sensitivity(record: Record) -> Iterator[str]:
    if not record.ranking:
        return
    yield from ["", "## What int8 costs, layer by layer", ""]
    rows: list[tuple[str, ...]] = [("graph", "layer", "weights", "error of the outputs")]
    rows += [(entry.graph, entry.layer, entry.weight, f"{entry.error:.2%}") for entry in record.ranking[:20]]
    yield from _markdown(rows)


def _pictures(pictures: Sequence[tuple[str, Path]]) -> Iterator[str]:
    if not pictures:
        return
    yield from ["## Worst pictures", "", "Left the float model, right the variant.", ""]
    for title, path in pictures:
        yield from [f"{title}:", "", f"![{title}]({path.name})", ""]


def _row(one: Judged, record: Record) -> tuple[str, ...]:
    variant, found = one.variant, one.verification
    size = "free" if variant.input_size is None else "{}x{}".format(*variant.input_size)
    start = (variant.name, one.runtime, size, f"{record.sizes[variant.name] / 2**20:.2f}")
    if found is None:
        return (*start, *["-"] * 7, "not run")
    shift = found.deviation
    people = f"{shift.missing} / {shift.extra} of {shift.people}"
    return (
        *start,
        "-" if found.accuracy is None else f"{100 * found.accuracy.stats.get('AP', 0.0):.2f}",
        "-" if found.ap_drop is None else f"{found.ap_drop:.2f}",
        f"{shift.shift_median:.2f} / {shift.shift_p99:.1f} / {shift.shift_max:.0f}",
        f"{shift.mean_oks:.3f}",
        people,
        *(_speed(graph, found.speed, found.float_speed) for graph in ("trunk_cpu", "adapt_cpu")),
        f"MISSED: {one.fault}" if one.fault is not None else NOBODY if found.is_empty else "passed",
    )


def _speed(graph: str, ours: Speed | None, theirs: Speed | None) -> str:
    """Milliseconds, and how many times as fast as the float model, with which it took turns."""
    spent, before = (0.0 if speed is None else getattr(speed, graph) for speed in (ours, theirs))
    return f"{spent:.2f} ({before / spent:.1f}x)" if spent and before else "-"


def _times(one: Judged) -> dict[str, object]:
    found = None if one.verification is None else one.verification.to_dict()
    return {"runtime": one.runtime} | ({} if found is None else {"ms": found["ms"], "float_ms": found["float_ms"]})


def _markdown(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    first, *rest = rows
    yield f"| {' | '.join(first)} |"
    yield f"| {' | '.join('---' for _ in first)} |"
    for row in rest:
        yield f"| {' | '.join(row)} |"
