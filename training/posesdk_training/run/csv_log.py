"""Figures by step in a CSV file that goes on after a kill."""

import csv
from collections.abc import Mapping
from pathlib import Path

from posesdk_runtimes.errors import DataError
from posesdk_training.files import write_text

__all__ = ["CsvLog"]


class CsvLog:
    """Rows that begin with a step's number, under `columns`, or under those that the file has already.

    What a killed run has logged beyond `step` is dropped: those steps are done again.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], *, step: int) -> None:
        self._path = path
        self._columns = columns
        if path.exists():
            self._drop_after(step)

    def add(self, row: Mapping[str, float]) -> None:
        """Appends a row; figures without a column are left out. Raises DataError when the file cannot be written."""
        try:
            with self._path.open("a", newline="") as file:
                writer = csv.DictWriter(file, self._columns, restval="", extrasaction="ignore", lineterminator="\n")
                if file.tell() == 0:
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            raise DataError(f"cannot write {self._path}: {error.strerror}; check the free space") from error

    def _drop_after(self, step: int) -> None:
        """Keeps the header and the whole rows up to `step`; a file without a whole header is begun anew."""
        header, *rows = self._path.read_text().splitlines(keepends=True) or [""]
        if not header.endswith("\n"):
            self._path.unlink()
            return
        self._columns = tuple(header.rstrip("\n").split(","))
        numbers = [row.partition(",")[0] for row in rows]
        kept = [row for row, number in zip(rows, numbers, strict=True) if number.isdigit() and int(number) <= step]
        write_text(self._path, "".join([header, *(row for row in kept if row.endswith("\n"))]))
