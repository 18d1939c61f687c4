"""Several evaluation reports side by side: for ablations and tables of runs."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posesdk_runtimes.errors import DataError
from posesdk_training.evaluation.keypoints import STATS
from posesdk_training.files import read_json
from posesdk_training.report.grids import Table, is_nested, number
from posesdk_training.report.tables import HIDDEN

__all__ = ["compare_reports", "read_report", "report_names"]

SETTINGS = ("score_threshold", "expand")
"""Numbers in rows that were set, not measured; all but the first tell rows apart."""
DETAILS = re.compile(
    r"keypoints\.(?!all\.oks$)|boxes\.(?!ann 0,25\.bb[pr]\.all$)|upper_bound\.(?!bounds\.\w+\.stats\.AP$)"
    r"|recall\..*\.(?!recall$)\w+$|tall_persons\.|false_positives\.(?!per_image$)|data\.(results|image_ids)"
)
"""Paths of figures that are parts of others."""


def read_report(path: Path) -> dict[str, Any]:
    """A report that `evaluate --json` or `--report` wrote. Raises DataError for any other file."""
    tree = read_json(path, "report")
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


def compare_reports(
    reports: Mapping[str, Mapping[str, Any]], *, difference: bool = False, everything: bool = False
) -> Table:
    """One column a report by its name: the figures, then the conditions and data in which they differ.

    With `difference`, every column after the first also says how much its figures differ from the first. Figures
    behind others (`DETAILS`) are left out unless `everything` is asked for.
    """
    flat = {name: _leaves(report) for name, report in reports.items()}
    keys = list(dict.fromkeys(key for leaves in flat.values() for key in leaves))
    order = {f"stats.{name}": rank for rank, name in enumerate(STATS)}
    rows = []
    for key in sorted(keys, key=lambda key: (_rank(key), order.get(key, len(STATS)))):
        values = [leaves.get(key) for leaves in flat.values()]
        differ = any(value != values[0] for value in values)
        figure = _is_figure(key) and any(map(_is_number, values))
        if (figure or differ) and (everything or not DETAILS.match(key)):
            rows.append((_name(key), *_cells(values, difference=difference and figure)))
    return Table(("", *flat), tuple(rows))


def _leaves(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Values by their dotted path, those of rows by what the row is of; other lists are values."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if not path and key in HIDDEN:
            continue
        place = path if key == "rows" else f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping):
            found |= _leaves(value, place)
        elif is_nested(value):
            for row in value:
                entries = _leaves({key: entry for key, entry in row.items() if key not in SETTINGS}, _place(row, place))
                found |= {name: entry for name, entry in entries.items() if name not in found}  # the first row stays
        else:
            found[place] = value
    return found


def _place(row: Mapping[str, Any], path: str) -> str:
    """The path of a row: what its settings and its texts say."""
    label = [number(value) for key, value in row.items() if isinstance(value, str) or key in SETTINGS[1:]]
    return f"{path}.{' '.join(label).replace('.', ',')}"


def _rank(key: str) -> int:
    return 0 if key.startswith("stats.") else 1 if _is_figure(key) else 2


def _is_figure(key: str) -> bool:
    """Whether a value was measured, not set: settings are shown only where they differ."""
    return "." in key and not key.startswith(("conditions.", "data.", "shown.")) and not key.endswith(SETTINGS)


def _name(key: str) -> str:
    """A path as words, without those that say nothing or the same again."""
    section, *rest = key.split(".")
    parts = [part for part in rest if part not in ("stats", section)]
    words = parts if section in ("stats", "conditions") else [section, *parts]
    return ": ".join(words).replace("_", " ").replace(",", ".")


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
