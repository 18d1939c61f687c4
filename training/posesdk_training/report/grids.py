"""Plain JSON values of any shape as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posesdk_training.evaluation.keypoints import STATS

__all__ = ["Table", "accuracy_rows", "is_nested", "number", "value_tables", "words"]


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; `rows` are as wide as `header`. `title` is empty where the section's title says it."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


ACRONYMS = {name.lower(): name for name in ("BBP", "BBR", "OKS", "PCK", "AP", "AR")}
TITLES = {"bounds": "First poses moved to the best place, by who they are moved to: mean OKS before and after"}
"""Titles of tables whose keys alone would not say enough."""
LONG = 12
"""A list of more values than this is counted, not printed."""


def value_tables(content: Any) -> list[Table]:
    """The accuracies within a section as one table, then everything else."""
    if not isinstance(content, Mapping):
        return _plain_tables(content)
    accuracies, rest = _without_accuracies(_with_shares(content))
    if not accuracies:
        return _plain_tables(rest)
    header, rows = accuracy_rows(accuracies)
    return [Table(header, tuple(rows)), *_plain_tables(rest)]


def _with_shares(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The figures of keypoints with each PCK under its share: both lists stand in the same order."""
    if not {"pck_shares", "rows"} <= content.keys():
        return content
    shares = [str(share) for share in content["pck_shares"]]
    rows = [row | {"pck": dict(zip(shares, row["pck"], strict=True))} for row in content["rows"]]
    return {**content, "rows": rows}


def _without_accuracies(content: Mapping[str, Any], path: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Dictionaries of COCO's figures at any depth by their path, and the content without them."""
    accuracies: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in content.items():
        name = key if key == "stats" else f"{path} {str(key).replace('_', ' ')}".strip()
        if isinstance(value, Mapping) and STATS[0] in value:
            accuracies[path if key == "stats" and path else name] = value
        elif isinstance(value, Mapping):
            deeper, left = _without_accuracies(value, name)
            accuracies |= deeper
            rest |= {key: left} if left else {}
        else:
            rest[key] = value
    return accuracies, rest


def _plain_tables(content: Any, title: str = "") -> list[Table]:
    """Rows of equal keys as one table, everything else as names with values; deeper levels follow as tables."""
    if not isinstance(content, Mapping):
        rows = {str(index): entry for index, entry in enumerate(content)}
        return [_grid(rows, title, named=False)] if rows else []
    if not content:
        return []
    if all(isinstance(value, Mapping) and not _deep(value) for value in content.values()) and _alike(content):
        return [_grid(content, title, named=True)]
    deep = {name: value for name, value in content.items() if _deep(value)}
    plain = {name: value for name, value in content.items() if name not in deep}
    pairs = tuple((words(str(name)), number(value)) for name, value in plain.items())
    found = [Table(("", "value"), pairs, title)] if pairs else []
    for name, value in deep.items():
        below = "" if name == "rows" else TITLES.get(str(name)) or words(str(name))
        found += _plain_tables(value, ": ".join(filter(None, (title, below))))
    return found


def _grid(rows: Mapping[str, Mapping[str, Any]], title: str, *, named: bool) -> Table:
    """Rows with all their keys as columns; a key that holds a dictionary has a column for each of its keys."""
    flat = {name: _flat(row) for name, row in rows.items()}
    columns = list(dict.fromkeys(key for row in flat.values() for key in row))
    header = tuple(words(column) for column in columns)
    cells = tuple(zip(*(_column([row.get(column) for row in flat.values()]) for column in columns), strict=True))
    if not named:
        return Table(header, cells, title)
    labelled = tuple((str(name), *row) for name, row in zip(rows, cells, strict=True))
    return Table(("", *header), labelled, title)


def _column(values: Sequence[Any]) -> list[str]:
    """Cells with equally many digits, where one of them needs as many as a measured value has."""
    exact = all(not isinstance(value, float) or _is_short(value) for value in values)
    return [number(value) if exact or not isinstance(value, float) else _measured(value) for value in values]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in row.items():
        found |= (
            {f"{key} {part}": entry for part, entry in value.items()} if isinstance(value, Mapping) else {key: value}
        )
    return found


def _alike(rows: Mapping[str, Any]) -> bool:
    """Whether rows share a key: then they belong in one table."""
    keys = [set(row) for row in rows.values()]
    return bool(set.intersection(*keys))


def _deep(value: Any) -> bool:
    """Whether a value needs a table of its own: rows, or a dictionary that holds dictionaries."""
    if isinstance(value, Mapping):
        return any(isinstance(entry, Mapping) or _is_rows(entry) for entry in value.values())
    return _is_rows(value)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, Mapping) for entry in value)


def is_nested(value: Any) -> bool:
    """Whether a value of a report is a section, not a single figure."""
    return isinstance(value, Mapping) or _is_rows(value)


def accuracy_rows(rows: Mapping[str, Mapping[str, float | None]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of COCO's figures in their order, all with three digits."""
    present = dict.fromkeys(name for stats in rows.values() for name in stats)
    names = [*(name for name in STATS if name in present), *(name for name in present if name not in STATS)]
    cells = [[stats.get(name) for name in names] for stats in rows.values()]
    texts = [("-" if value is None else f"{value:.3f}" for value in row) for row in cells]
    return ("", *names), [(label, *row) for label, row in zip(rows, texts, strict=True)]


def number(value: Any) -> str:
    """One value of a report as the text of a cell; long lists are counted."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _decimal(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {number(entry)}" for key, entry in value.items()) or "-"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{len(value)} values" if len(value) > LONG else ", ".join(map(number, value)) or "-"
    return str(value)


def words(name: str) -> str:
    """A key as the title of a column or a row."""
    words = [ACRONYMS.get(word, word) for word in name.replace("_", " ").split()]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def _decimal(value: float) -> str:
    """A setting such as 0.0343 as it is, a measured value with three digits."""
    return f"{value:.4f}".rstrip("0").rstrip(".") if _is_short(value) else _measured(value)


def _is_short(value: float) -> bool:
    return float(f"{value:.4f}") == value


def _measured(value: float) -> str:
    """Three digits behind the point, one from 10 on."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
