"""Checks of what a caller passes, by the names of the arguments."""

from numbers import Integral, Real

__all__ = ["MOST_THREADS", "check_counts", "check_names", "check_parts"]

MOST_THREADS = 1024
"""That a command may be told to use: no processor has more, and each takes memory."""


def check_names(**names: object) -> None:
    """Raises TypeError for one that is no string."""
    for setting, name in names.items():
        if not isinstance(name, str):
            raise TypeError(f"{setting}: expected a string, got {name!r}")


def check_parts(**parts: object) -> None:
    """Raises TypeError or ValueError for one that is no number from 0 to 1, nor None."""
    for setting, part in parts.items():
        if part is not None and not isinstance(part, Real):
            raise TypeError(f"{setting}: expected a number from 0 to 1, got {part!r}")
        if part is not None and not 0 <= float(part) <= 1:
            raise ValueError(f"{setting}: expected a number from 0 to 1, got {part}")


def check_counts(**counts: object) -> None:
    """Raises TypeError or ValueError for one that is no whole number of at least 1, nor None."""
    for setting, count in counts.items():
        if count is not None and not isinstance(count, Integral):
            raise TypeError(f"{setting}: expected a whole number, got {count!r}")
        if count is not None and int(count) < 1:
            raise ValueError(f"{setting}: expected at least 1, got {count}")
