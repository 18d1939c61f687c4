"""An evaluation report, or several side by side, as Markdown."""

from collections.abc import Mapping
from typing import Any

from posesdk_training.report.grids import Table
from posesdk_training.report.tables import Section, report_sections

__all__ = ["markdown_report", "markdown_section", "markdown_table", "plain_table", "report_title"]


def markdown_report(report: Mapping[str, Any]) -> str:
    """The whole report, a heading and its tables for every section."""
    lines = [f"# {report_title(report)}", ""]
    for section in report_sections(report):
        lines += [f"## {section.title}", "", markdown_section(section), ""]
    return "\n".join(lines).rstrip() + "\n"


def report_title(report: Mapping[str, Any]) -> str:
    """The model and what it was measured on, as far as the report says so."""
    data, model = report.get("data", {}), report.get("conditions", {}).get("model", "model")
    if not {"images", "persons"} <= data.keys():
        return f"Evaluation of {model}"
    return f"Evaluation of {model} on {data['images']} images, {data['persons']} labelled persons"


def markdown_section(section: Section) -> str:
    """Sentences and tables of one section, without its heading."""
    parts = [*section.sentences]
    for table in section.tables:
        parts += [f"{_escaped(table.title)}:", markdown_table(table)] if table.title else [markdown_table(table)]
    return "\n\n".join(parts) if parts else "Nothing was measured."


def markdown_table(table: Table) -> str:
    """A pipe table; numbers stand right, names left."""
    header = " | ".join(_escaped(cell) or " " for cell in table.header)
    rules = " | ".join(_rule([row[column] for row in table.rows]) for column in range(len(table.header)))
    rows = [f"| {' | '.join(map(_escaped, row))} |" for row in table.rows]
    return "\n".join([f"| {header} |", f"| {rules} |", *rows])


def plain_table(table: Table) -> str:
    """Columns for a terminal of any width, two spaces apart."""
    rows = [table.header, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.header))]
    lines = [[cell.ljust(widths[0]) if not i else cell.rjust(widths[i]) for i, cell in enumerate(row)] for row in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _rule(cells: list[str]) -> str:
    numeric = cells and all(cell == "-" or cell.lstrip("+-").replace(".", "", 1).isdigit() for cell in cells)
    return "---:" if numeric else "---"


def _escaped(cell: str) -> str:
    """Text that cannot end a cell, a line or the page's structure, whatever a file name holds."""
    return " ".join(cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())
