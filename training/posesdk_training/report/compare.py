"""Several evaluation reports side by side: for ablations and tables of runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posesdk_runtimes.errors import DataError
from posesdk_training.evaluation.keypoints import STATS
from posesdk_training.report.grids import Table, number
from posesdk_training.report.tables import HIDDEN

__all__ = ["compare_reports", "read_report", "report_names"]


def read_report(path: Path) -> dict[str, Any]:
    """A report that `evaluate --json` or `--report` wrote. Raises DataError for any other file."""
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read report {path}: {error}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("stats"), dict):
        raise DataError(
            f"{path} is no report: expected an object with `stats`, as `posesdk-train evaluate --json` writes"
        )
    return tree


def report_names(paths: Sequence[Path]) -> list[str]:
    """A name for each file, as short as tells them apart: the file's, else its folder's and the file's, else all."""
    for name in (lambda path: path.stem, lambda path: path.parent.name, lambda path: f"{path.parent.name}/{path.stem}"):
        names = [name(path) for path in paths]
        if all(names) and len(set(names)) == len(names):
            return names
    return [f"{index}: {path}" for index, path in enumerate(paths, start=1)]


def compare_reports(reports: Mapping[str, Mapping[str, Any]], *, difference: bool = False) -> Table:
    """One column a report by its name: every figure, then the conditions and data in which they differ.

    With `difference`, every column after the first also says how much its figures differ from the first.
    """
    flat = {name: _leaves(report) for name, report in reports.items()}
    keys = list(dict.fromkeys(key for leaves in flat.values() for key in leaves))
    order = {f"stats.{name}": rank for rank, name in enumerate(STATS)}
    rows = []
    for key in sorted(keys, key=lambda key: (_rank(key), order.get(key, len(STATS)))):
        values = [leaves.get(key) for leaves in flat.values()]
        if _is_figure(key) or any(value != values[0] for value in values):
            rows.append((_name(key), *_cells(values, difference=difference and _is_figure(key))))
    return Table(("", *flat), tuple(rows))


def _leaves(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Values by their dotted path; lists are values."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if not path and key in HIDDEN:
            continue
        place = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping):
            found |= _leaves(value, place)
        elif not _is_rows(value):
            found[place] = value
    return found


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value)


def _rank(key: str) -> int:
    return 0 if key.startswith("stats.") else 1 if _is_figure(key) else 2


def _is_figure(key: str) -> bool:
    """Whether a value was measured, not set: settings are shown only where they differ."""
    return not key.startswith(("conditions.", "data.", "shown.")) and not key.endswith("threshold")


def _name(key: str) -> str:
    section, _, rest = key.partition(".")
    path = rest if section in ("stats", "conditions") else key
    return path.replace("_", " ").replace(".", ": ")


def _cells(values: Sequence[Any], *, difference: bool) -> list[str]:
    cells = [number(value) for value in values]
    if not difference or not _is_number(values[0]):
        return cells
    return [
        cells[0],
        *(_with_change(cell, value, values[0]) for cell, value in zip(cells[1:], values[1:], strict=True)),
    ]


def _with_change(cell: str, value: Any, first: float) -> str:
    if not _is_number(value):
        return cell
    change = value - first
    return f"{cell} ({change:+.3f})" if isinstance(change, float) else f"{cell} ({change:+d})"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
