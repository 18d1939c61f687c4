"""What was measured, as tables and lines of ratios."""

from collections.abc import Mapping, Sequence

import numpy as np

from peers.finder import STAGES, Finder
from peers.latency import Latency
from peers.rate import Rate
from posesdk_training.evaluation.keypoints import KeypointAccuracy
from posesdk_training.report.grids import Table

__all__ = ["growth_table", "picture_table", "rate_table", "ratio_lines"]

Finders = Mapping[str, Finder]


def picture_table(
    finders: Finders, accuracies: Mapping[str, KeypointAccuracy], latencies: Mapping[str, Latency]
) -> Table:
    """Accuracy beside the time of a picture; a dash for what was not measured."""
    rows = []
    for name, finder in finders.items():
        stats = accuracies[name].stats if name in accuracies else {}
        latency = latencies.get(name)
        figures = [_number(stats.get("AP"), 3), _number(stats.get("AP50"), 3)]
        if latency is None:
            figures += ["-"] * (4 + len(STAGES))
        else:
            figures += [_number(value, 2) for value in (latency.percentile(50), latency.percentile(95), latency.least)]
            figures += [_number(latency.percentile(50, stage), 2) for stage in STAGES]
            figures.append(_number(latency.people, 1))
        rows.append((finder.title, *figures))
    header = ("model", "AP", "AP50", "p50 ms", "p95 ms", "least ms", *(f"{stage} p50" for stage in STAGES), "people")
    return Table(header, tuple(rows))


def rate_table(finders: Finders, rates: Mapping[str, Rate]) -> Table:
    """Frames per second of a video."""
    rows = []
    for name, rate in rates.items():
        figures = (np.median(rate.single), max(rate.single), np.median(rate.streamed), max(rate.streamed))
        rows.append((finders[name].title, *(_number(float(value), 1) for value in (*figures, np.mean(rate.people)))))
    header = ("model", "one by one, fps", "best of them", "overlapped, fps", "best of these", "people a frame")
    return Table(header, tuple(rows))


def ratio_lines(finders: Finders, rates: Mapping[str, Rate], ours: Sequence[str]) -> list[str]:
    """How many times the frames per second of each other model the first of ours does: the median of the rounds.

    A round's ratio is of two passes that lay close together, and holds on a machine that does other work.
    """
    if not ours:
        return []
    own = rates[ours[0]]
    lines = []
    for name, rate in rates.items():
        if name in ours:
            continue
        streamed, single = (
            float(np.median(np.divide(one, other)))
            for one, other in ((own.streamed, rate.streamed), (own.single, rate.single))
        )
        title = f"{finders[ours[0]].title} / {finders[name].title}"
        lines.append(f"{title}: {streamed:.2f} overlapped, {single:.2f} one by one")
    return lines


def growth_table(finders: Finders, growth: Mapping[int, Mapping[str, Latency]]) -> Table:
    """Median ms for each number of people; in brackets how many were found, where it was another number.

    What one more person costs is told by the fastest calls of the first and the last number.
    """
    counts = list(growth)
    rows = []
    for name, finder in finders.items():
        cells = []
        for count in counts:
            latency = growth[count][name]
            found = round(latency.people)
            cells.append(f"{latency.percentile(50):.2f}" + ("" if found == count else f" ({found})"))
        rise = growth[counts[-1]][name].least - growth[counts[0]][name].least
        each = rise / (counts[-1] - counts[0]) if len(counts) > 1 else float("nan")
        rows.append((finder.title, *cells, f"{each:.3f}"))
    return Table(("ms by people", *map(str, counts), "a person more, of least ms"), tuple(rows))


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
