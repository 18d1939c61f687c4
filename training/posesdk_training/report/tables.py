"""An evaluation report as titled tables: what every page of it is written from.

A report is a dictionary of sections, each plain JSON values. Sections that this module does not know become tables of
their own, so that a new figure shows up without a change here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posesdk_training.evaluate import STATS

__all__ = ["Section", "Table", "heading", "number", "report_sections"]

TITLES = {
    "stats": "COCO keypoint accuracy",
    "data": "Data",
    "tall_persons": "People taller than half the picture",
    "large_persons": "Large people",
    "false_positives": "Pictures without people",
    "conditions": "Conditions",
}
"""Titles of sections whose names alone would not say enough."""
SENTENCES = {
    "tall_persons": {"found", "persons", "score_threshold"},
    "false_positives": {"persons", "images", "per_image", "score_threshold"},
}
"""Sections that are told in a sentence, and the keys that it needs."""
FIRST, LAST = ("stats", "data"), ("conditions",)
HIDDEN = ("skeleton",)
"""For programs, not for readers."""
LONG = 12
"""A list of more values than this is counted, not printed."""


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; `rows` are as wide as `header`. `title` is empty where the section's title says it."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """One titled part of a report: sentences, then tables."""

    name: str
    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()


def report_sections(report: Mapping[str, Any]) -> list[Section]:
    """Every section of a report, the accuracy first and the conditions last."""
    known = [name for name in FIRST if name in report]
    last = [name for name in LAST if name in report]
    rest = [name for name in report if name not in {*FIRST, *LAST, *HIDDEN}]
    found = [_section(name, report[name]) for name in [*known, *rest, *last] if _is_nested(report[name])]
    plain = {name: report[name] for name in rest if not _is_nested(report[name])}
    return [*found, _section("other", plain)] if plain else found


def heading(name: str) -> str:
    """A key of a report as a title: `tall_persons` becomes what it counts."""
    if name in TITLES:
        return TITLES[name]
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def number(value: Any) -> str:
    """One value of a report as the text of a cell; long lists are counted."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if 0.1 <= abs(value) < 10 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {number(entry)}" for key, entry in value.items()) or "-"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{len(value)} values" if len(value) > LONG else ", ".join(map(number, value)) or "-"
    return str(value)


def _section(name: str, content: Any) -> Section:
    if name == "stats":
        return Section(name, heading(name), (), (_stats_table(content),))
    sentence, told = _sentence(name, content)
    rest = {key: value for key, value in content.items() if key not in told} if told else content
    return Section(name, heading(name), (sentence,) if sentence else (), tuple(_tables(rest)))


def _stats_table(stats: Mapping[str, float]) -> Table:
    names = [*(name for name in STATS if name in stats), *(name for name in stats if name not in STATS)]
    return Table(tuple(names), (tuple(f"{stats[name]:.3f}" for name in names),))


def _sentence(name: str, content: Any) -> tuple[str, set[str]]:
    """What the figures of a section mean, where their names alone would not say it, and the keys that it tells."""
    told = SENTENCES.get(name, set())
    if not told or not isinstance(content, Mapping) or not told <= content.keys():
        return "", set()
    level = f"with a score of at least {number(content['score_threshold'])}"
    if name == "tall_persons":
        share = f" ({content['found'] / content['persons']:.0%})" if content["persons"] else ""
        return f"{content['found']} of {content['persons']} people{share} found at OKS 0.5 {level}.", told
    found = f"{content['persons']} people found {level} in {content['images']} pictures that show nobody"
    return f"{found}: {content['per_image']:.3f} a picture.", told


def _tables(content: Any, title: str = "") -> list[Table]:
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
    pairs = tuple((heading(str(name)), number(value)) for name, value in plain.items())
    found = [Table(("", "value"), pairs, title)] if pairs else []
    for name, value in deep.items():
        found += _tables(value, f"{title}: {heading(str(name))}" if title else heading(str(name)))
    return found


def _grid(rows: Mapping[str, Mapping[str, Any]], title: str, *, named: bool) -> Table:
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    header = tuple(heading(str(column)) for column in columns)
    cells = tuple(tuple(number(row.get(column)) for column in columns) for row in rows.values())
    if not named:
        return Table(header, cells, title)
    labelled = tuple((str(name), *row) for name, row in zip(rows, cells, strict=True))
    return Table(("", *header), labelled, title)


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


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping) or _is_rows(value)
