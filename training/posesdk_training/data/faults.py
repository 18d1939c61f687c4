"""Faults of an annotation file: counted by kind while it is read, and told in one warning a kind."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Fault", "FaultLog", "warn"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, how often, what was done about it, and where it was seen first."""

    kind: str
    count: int
    first: str

    def __str__(self) -> str:
        return f"{self.count} {self.kind}, first: {self.first}"


class FaultLog:
    """Collects the faults of one file; `kind` reads after a number: "keypoints lie outside of their image ..."."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, kind: str, place: str, count: int = 1) -> None:
        """Counts a fault at `place`, such as "annotation 123"."""
        if count:
            self._counts[kind] = self._counts.get(kind, 0) + count
            self._first.setdefault(kind, place)

    def faults(self) -> tuple[Fault, ...]:
        """What was counted, by kind."""
        return tuple(Fault(kind, count, self._first[kind]) for kind, count in self._counts.items())


def warn(title: str, faults: Iterable[Fault]) -> None:
    """One warning a fault, which starts with `title`."""
    for fault in faults:
        logger.warning("%s: %s", title, fault)
