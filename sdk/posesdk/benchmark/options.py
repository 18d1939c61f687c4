"""What the texts of `posesdk benchmark`'s options mean."""

import re
from collections.abc import Iterator, Sequence

from posesdk.benchmark.throughput import LEAST_SECONDS

__all__ = ["parse_counts", "parse_cpus", "parse_names", "parse_sustained"]

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
DEFAULT = "auto"


def parse_names(values: Sequence[str] | None, option: str) -> tuple[str, ...]:
    """("fp32", "int8") of an option given twice, or once with a comma; ("auto",) of none. Raises ValueError."""
    if not values:
        return (DEFAULT,)
    names = tuple(dict.fromkeys(_parts(values)))
    if "" in names:
        raise ValueError(f"{option}: expected names with commas between them, got {','.join(values)!r}")
    return names


def parse_counts(values: Sequence[str] | None, option: str, least: int, most: int) -> tuple[int, ...]:
    """(1, 5, 10) of "1,5" and "10", () of none. Raises ValueError."""
    parts = list(_parts(values or ()))
    if not all(_is_number(part) and least <= int(part) <= most for part in parts):
        raise ValueError(
            f"{option}: expected whole numbers from {least} to {most} with commas between them, "
            f"got {','.join(values or ())!r}"
        )
    return tuple(dict.fromkeys(map(int, parts)))


def parse_cpus(values: Sequence[str] | None) -> tuple[int, ...]:
    """(0, 1, 2, 6) of "0-2,6", () of none. Raises ValueError."""
    cpus: list[int] = []
    for part in _parts(values or ()):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (_is_number(first) and _is_number(last)) or int(first) > int(last):
            raise ValueError(f"--cpus: expected processors like 0,1 or 0-3,6, got {','.join(values or ())!r}")
        cpus += range(int(first), int(last) + 1)
    return tuple(dict.fromkeys(cpus))


def parse_sustained(text: str | None) -> float | None:
    """600 of "10m"; s, m and h are known. Raises ValueError, also for less than a tenth of it tells something."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if found is None:
        raise ValueError(f"--sustained: expected a time like 30s, 10m or 1h, got {text!r}")
    seconds = float(found[1]) * UNITS[found[2]]
    if seconds < LEAST_SECONDS:
        raise ValueError(
            f"--sustained: expected at least {LEAST_SECONDS:g}s, of which each tenth tells a rate, got {text!r}"
        )
    return seconds


def _parts(values: Sequence[str]) -> Iterator[str]:
    return (part.strip() for value in values for part in value.split(","))


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None  # with more digits a span would fill the memory
