"""An evaluation report as titled tables: what every page of it is written from.

A report is a dictionary of sections, each plain JSON values. Sections that this module does not know become tables of
their own, so that a new figure shows up without a change here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posesdk_training.report.grids import Table, accuracy_rows, is_nested, number, value_tables, words

__all__ = ["HIDDEN", "Section", "heading", "report_sections"]

TITLES = {
    "stats": "COCO keypoint accuracy",
    "data": "Data",
    "tall_persons": "People taller than half the picture",
    "large_persons": "Large people",
    "false_positives": "Pictures without people",
    "recall": "People found at OKS 0.5",
    "boxes": "Boxes: precision and recall (BBP, BBR) at IoU 0.5",
    "keypoints": "Each keypoint",
    "upper_bound": "Empirical upper bound of the adaptation",
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
    last = [*LAST]
    rest = [name for name in report if name not in {*FIRST, *LAST, *HIDDEN}]
    plain = {name: report[name] for name in rest if not is_nested(report[name])}
    content = {**report, "conditions": {**plain, **report.get("conditions", {})}}
    return [_section(name, content[name]) for name in [*known, *rest, *last] if is_nested(content[name])]


def heading(name: str) -> str:
    """A key of a report as a title: `tall_persons` becomes what it counts."""
    if name in TITLES:
        return TITLES[name]
    return words(name)


def _section(name: str, content: Any) -> Section:
    if name == "stats":
        return Section(name, heading(name), (), (_stats_table(content),))
    sentence, told = _sentence(name, content)
    rest = {key: value for key, value in content.items() if key not in told} if told else content
    return Section(name, heading(name), (sentence,) if sentence else (), tuple(value_tables(rest)))


def _stats_table(stats: Mapping[str, float]) -> Table:
    header, rows = accuracy_rows({"": stats})
    return Table(header[1:], tuple(row[1:] for row in rows))


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
