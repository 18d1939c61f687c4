"""The picture page of an evaluation: one HTML file that needs nothing but the pictures beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

from posesdk_training.report.grids import Table
from posesdk_training.report.markdown import report_title
from posesdk_training.report.tables import Section, report_sections

__all__ = ["Chart", "Shown", "html_page"]


@dataclass(frozen=True, slots=True)
class Chart:
    """An SVG and the sentence below it."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Shown:
    """One case on the page: its name, why it is there, and pictures as (path from the page, text, caption, size).

    `pictures` is empty where the picture could not be read, `fault` then says why.
    """

    name: str
    reason: str
    pictures: tuple[tuple[str, str, str, tuple[int, int]], ...] = ()
    fault: str = ""


def html_page(report: Mapping[str, Any], charts: Sequence[Chart], cases: Mapping[str, Sequence[Shown]]) -> str:
    """The whole page; titles, names and reasons may hold any text."""
    title = report_title(report)
    sections = report_sections(report)
    parts = [_section(section) for section in sections[:1]]
    if charts:
        parts.append(
            f'<section id="charts"><h2>Charts</h2><div class="charts">{"".join(map(_chart, charts))}</div></section>'
        )
    parts += [_cases(f"cases-{index}", kind, cases[kind]) for index, kind in enumerate(cases)]
    parts += [_section(section) for section in sections[1:]]
    if not cases:
        parts.insert(1, "<p>No picture has people, and none were found: there is nothing to show.</p>")
    links = [(f"cases-{index}", kind) for index, kind in enumerate(cases)]
    links += [(f"section-{section.name}", section.title) for section in sections[1:]]
    style = (resources.files("posesdk_training.report") / "page.css").read_text("utf-8")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>\n{style}</style></head>\n<body><main><h1>{escape(title)}</h1>{_links(links)}\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _links(links: Sequence[tuple[str, str]]) -> str:
    entries = "".join(f'<li><a href="#{escape(name, quote=True)}">{escape(text)}</a></li>' for name, text in links)
    return f'<nav aria-label="Sections"><ul>{entries}</ul></nav>'


def _section(section: Section) -> str:
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in section.sentences)
    tables = "".join(map(_table, section.tables))
    name = escape(section.name, quote=True)
    return f'<section id="section-{name}"><h2>{escape(section.title)}</h2>{sentences}{tables}</section>'


def _table(table: Table) -> str:
    caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    header = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    return f'<div class="scroll"><table>{caption}<thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>'


def _chart(chart: Chart) -> str:
    return f"<figure><h3>{escape(chart.title)}</h3>{chart.svg}<figcaption>{escape(chart.caption)}</figcaption></figure>"


KEY = (
    '<p class="key"><b class="is-right"></b>found or right<b class="is-fault"></b>missed or wrong'
    '<b class="is-ignored"></b>not counted</p>'
)


def _cases(name: str, kind: str, cases: Sequence[Shown]) -> str:
    shown = "".join(map(_case, cases))
    return f'<section id="{name}"><h2>{escape(kind)}</h2>{KEY}<div class="cases">{shown}</div></section>'


def _case(case: Shown) -> str:
    heading = f"<h3>{escape(case.name)}: {escape(case.reason)}</h3>"
    if not case.pictures:
        return f'<article class="case">{heading}<p class="absent">{escape(case.fault)}</p></article>'
    figures = "".join(
        f'<figure><img src="{escape(path, quote=True)}" alt="{escape(text, quote=True)}" width="{size[0]}" '
        f'height="{size[1]}" loading="lazy"><figcaption>{escape(caption)}</figcaption></figure>'
        for path, text, caption, size in case.pictures
    )
    return f'<article class="case">{heading}<div class="pair">{figures}</div></article>'
