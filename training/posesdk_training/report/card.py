"""Model cards: text by people, figures from reports, so that no figure is copied by hand and grows stale.

A card has blocks that are written from the reports in the folder of the card's name, `card/NAME.json`:

    <!-- measured: stats of NAME -->         one section of a report
    <!-- measured: compare NAME NAME ... --> the COCO figures of several, a row each
    <!-- end measured -->
"""

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from posesdk_runtimes.errors import DataError
from posesdk_training.files import write_json
from posesdk_training.report.compare import read_report
from posesdk_training.report.grids import Table, accuracy_rows
from posesdk_training.report.markdown import markdown_section, markdown_table
from posesdk_training.report.tables import report_sections

__all__ = ["filled_card", "new_card", "read_card", "store_report", "stored_reports"]

BLOCK = re.compile(r"(<!-- measured: ([^>]*?) -->\n).*?(<!-- end measured -->)", re.DOTALL)
OPENING = re.compile(r"<!-- measured: ")


def filled_card(text: str, reports: Mapping[str, Mapping[str, Any]]) -> str:
    """The card with every block written anew. Raises DataError for a block of an unknown report or section."""
    if len(BLOCK.findall(text)) != len(OPENING.findall(text)):
        raise DataError(
            "a block of the card does not end: close every `<!-- measured: ... -->` by `<!-- end measured -->`"
        )

    def written(match: re.Match[str]) -> str:
        return f"{match[1]}\n{_content(match[2].split(), reports)}\n\n{match[3]}"

    return BLOCK.sub(written, text)


def read_card(path: Path) -> str:
    """The text of a card. Raises DataError."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read model card {path}: {error}") from error


def new_card(name: str) -> str:
    """An empty card for a model: what has to be said, with blocks for what was measured."""
    template = (resources.files("posesdk_training.report") / "card.md").read_text("utf-8")
    return template.replace("MODEL", name)


def stored_reports(card: Path) -> dict[str, dict[str, Any]]:
    """The reports of a card by name. Raises DataError for a file that is no report."""
    return {path.stem: read_report(path) for path in sorted(card.with_suffix("").glob("*.json"))}


def store_report(card: Path, name: str, report: Path) -> None:
    """Keeps a report beside a card: without the list of images, and without the folders of the machine it is from.

    Raises DataError for a file that is no report, and where the folder cannot be written.
    """
    tree = read_report(report)
    data = {key: _short_path(key, value) for key, value in tree.get("data", {}).items() if key != "image_ids"}
    empty = {key: _short_path(key, value) for key, value in tree.get("false_positives", {}).items()}
    kept = {key: value for key, value in tree.items() if key not in ("skeleton", "shown")}
    kept |= {"data": data} if data else {}
    kept |= {"false_positives": empty} if empty else {}
    write_json(card.with_suffix("") / f"{name}.json", kept)


def _short_path(key: str, value: Any) -> Any:
    return "/".join(Path(value).parts[-2:]) if key in ("annotations", "folder") else value


def _content(words: list[str], reports: Mapping[str, Mapping[str, Any]]) -> str:
    if words[:1] == ["compare"] and len(words) > 1:
        rows = {name: _report(name, reports)["stats"] for name in words[1:]}
        header, cells = accuracy_rows(rows)
        return markdown_table(Table(header, tuple(cells)))
    if len(words) != 3 or words[1] != "of":
        raise DataError(
            f"cannot read the block `measured: {' '.join(words)}`; write `SECTION of REPORT` or `compare A B`"
        )
    section, name = words[0], words[2]
    found = {entry.name: entry for entry in report_sections(_report(name, reports))}
    if section not in found:
        raise DataError(f"report {name!r} has no section {section!r}; it has {', '.join(found)}")
    return markdown_section(found[section])


def _report(name: str, reports: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    if name not in reports:
        raise DataError(
            f"the card has no report {name!r}, only {', '.join(reports) or 'none'}; give {name}=REPORT.json"
        )
    return reports[name]
