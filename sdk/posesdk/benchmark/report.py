"""What was measured so far, as tables and as JSON; an interrupted run has the parts that it came to."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from posesdk.benchmark.accuracy import AP, Accuracy
from posesdk.benchmark.batches import BatchTimes
from posesdk.benchmark.entries import Entry, LeftOut
from posesdk.benchmark.frames import Frames
from posesdk.benchmark.latency import TOTAL, latency_of, stage_table
from posesdk.benchmark.people import PeopleTimes
from posesdk.benchmark.rounds import PERCENTILES, Rounds
from posesdk.benchmark.startup import Fresh
from posesdk.benchmark.tables import NOTHING, Table
from posesdk.benchmark.throughput import Rates, Sustained, sustained_table

__all__ = ["Results", "report_dict", "report_tables"]

SCHEMA_VERSION = 1
HEADINGS = (
    *("entry", "AP", *(f"p{share} ms" for share in PERCENTILES), "speed-up", "frames/s", "rate-up"),
    *("peak MiB", "start-up ms", "first frame ms", "°C", "W"),
)


@dataclass
class Results:
    """The entries and all that is known of them, by their numbers; filled while the work goes on."""

    entries: list[Entry]
    left_out: list[LeftOut]
    frames: Frames
    net_sizes: list[tuple[int, int]] = field(default_factory=list)
    fresh: dict[int, Fresh] = field(default_factory=dict)
    accuracy: dict[int, Accuracy] = field(default_factory=dict)
    latency: Rounds | None = None
    rates: Rates | None = None
    people: PeopleTimes | None = None
    batches: BatchTimes | None = None
    sustained: list[tuple[Entry, Sustained]] = field(default_factory=list)
    complete: bool = False


def report_tables(results: Results) -> Iterator[Table]:
    """One table of everything, and one for each part that looks closer."""
    yield _main_table(results)
    if _measured(results.latency) is not None:
        yield stage_table(results.latency, results.entries)  # type: ignore[arg-type]
    if results.people is not None and not results.people.is_empty:
        yield results.people.table()
    if results.batches is not None and not results.batches.is_empty:
        yield results.batches.table()
    if any(one.rates for _, one in results.sustained):
        yield sustained_table(results.sustained)


def report_dict(results: Results, conditions: dict[str, Any]) -> dict[str, Any]:
    """Everything for JSON."""
    return {
        "v": SCHEMA_VERSION,
        "complete": results.complete,
        "conditions": conditions,
        "entries": [_entry_dict(results, index) for index in range(len(results.entries))],
        "left_out": [{"name": one.name, "reason": one.reason, "failed": one.failed} for one in results.left_out],
    }


def _measured(rounds: Rounds | None) -> Rounds | None:
    return rounds if rounds is not None and rounds.laps else None


def _main_table(results: Results) -> Table:
    rows = []
    for index, entry in enumerate(results.entries):
        accuracy = results.accuracy.get(index)
        rows.append(
            (entry.name, NOTHING if accuracy is None else f"{accuracy.metrics[AP]:.1f}", *_speed(results, index))
        )
    return Table("Accuracy and speed", HEADINGS, tuple(rows), tuple(_notes(results)))


def _speed(results: Results, index: int) -> Iterator[str]:
    """The cells behind the accuracy."""
    latency, rates = _measured(results.latency), results.rates
    if latency is None:
        yield from [NOTHING] * (len(PERCENTILES) + 1)
    else:
        spread = latency.spread(index, TOTAL)
        yield from (f"{spread[f'p{share}']:.2f}" for share in PERCENTILES)
        yield f"{latency.speed_up(index, TOTAL):.2f}x"
    known = rates is not None and rates.turns
    yield f"{rates.rate(index):.1f}" if rates is not None and known else NOTHING
    yield f"{rates.rate_up(index):.2f}x" if rates is not None and known else NOTHING
    fresh = results.fresh.get(index, Fresh())
    yield from (_whole(value) for value in (fresh.peak_mib, fresh.start_ms, fresh.first_ms))
    yield _whole(rates.warmest(index) if rates is not None else None)
    yield _whole(rates.watts(index) if rates is not None else None)


def _whole(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f}"


def _notes(results: Results) -> Iterator[str]:
    sources = dict.fromkeys(_source_of(one) for one in results.accuracy.values())
    if sources:
        yield f"AP: {'; '.join(sources)}"
    yield f"speed-up, rate-up: over {results.entries[0].name}, the median of paired rounds"
    rates = results.rates
    if rates is not None and rates.turns:
        unread = [
            title
            for title, read in (("temperature", rates.warmest), ("power", rates.watts))
            if all(read(index) is None for index in range(len(results.entries)))
        ]
        if unread:
            yield f"{' and '.join(unread)}: not readable here"
    for index, fresh in results.fresh.items():
        if fresh.fault is not None:
            yield f"no memory and start-up of {results.entries[index].name}: {fresh.fault}"


def _source_of(accuracy: Accuracy) -> str:
    whose = "of the float model " if accuracy.variant == "float" and not accuracy.measured else ""
    done = "measured here" if accuracy.measured else f"{whose}as the bundle records it"
    return f"{done}, on {accuracy.dataset} ({accuracy.images} images)"


def _entry_dict(results: Results, index: int) -> dict[str, Any]:
    entry = results.entries[index]
    used, accuracy, fresh = entry.candidate, results.accuracy.get(index), results.fresh.get(index)
    latency, people, batches = _measured(results.latency), results.people, results.batches
    net_size = results.net_sizes[index] if index < len(results.net_sizes) else None
    sustained = [one for owner, one in results.sustained if owner is entry]
    return {
        "name": entry.name,
        "bundle": {"id": entry.bundle.manifest.id, "version": entry.bundle.manifest.version},
        "path": str(entry.bundle.path),
        **{"variant": used.variant.name, "precision": used.variant.precision},
        **{"runtime": used.runtime, "device": used.device, "threads": entry.threads},
        "net_size": None if net_size is None else {"height": net_size[0], "width": net_size[1]},
        "accuracy": None if accuracy is None else accuracy.to_dict(),
        "latency": None if latency is None else latency_of(latency, index),
        "throughput": results.rates.to_dict(index) if results.rates is not None and results.rates.turns else None,
        "fresh_process": None if fresh is None else fresh.to_dict(),
        "people": people.to_dict(index) if people is not None and not people.is_empty else None,
        "batches": batches.to_dict(index) if batches is not None and not batches.is_empty else None,
        "sustained": sustained[0].to_dict() if sustained else None,
    }
