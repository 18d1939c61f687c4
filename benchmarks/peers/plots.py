"""Accuracy against latency, and latency against people, as pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from matplotlib.transforms import Bbox

__all__ = ["Line", "Point", "plot_growth", "plot_tradeoff"]

OURS, THEIRS = "#0072b2", "#d55e00"
COLORS = ("#0072b2", "#56b4e9", "#009e73", "#d55e00", "#e69f00", "#f0c000", "#cc79a7", "#555555")
"""Of Okabe and Ito, and grey."""
MARKS = "osD^vP*X"
MARK = 6
"""Half the side of a mark, in pixels of the screen."""
PLACES = (5, -12, 16, -23, 27, -34)
"""Heights of a title beside its mark, in points, the best first."""
DPI = 144


@dataclass(frozen=True, slots=True)
class Point:
    """A model: ms of a picture, from `milliseconds` in the middle to `late` for one in twenty, and its AP."""

    title: str
    milliseconds: float
    late: float
    accuracy: float
    ours: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A model's ms for each number of people."""

    title: str
    people: Sequence[float]
    milliseconds: Sequence[float]
    ours: bool


def plot_tradeoff(points: Sequence[Point], note: str, path: Path) -> None:
    """Writes a PNG of AP against the median latency, the bar up to the 95th percentile."""
    figure, axes = _figure("Accuracy against latency", note)
    for point in points:
        color = OURS if point.ours else THEIRS
        axes.plot([point.milliseconds, point.late], [point.accuracy] * 2, color=color, linewidth=1, alpha=0.5)
        axes.plot(point.milliseconds, point.accuracy, "o", color=color, markersize=7)
    lowest, highest = min(point.milliseconds for point in points), max(point.late for point in points)
    axes.set_xlim(lowest / 1.6, highest * 2.2)
    axes.set_ylim(0, max(point.accuracy for point in points) * 1.15)
    axes.set_ylabel("AP (OKS .50:.95)")
    _milliseconds(axes.xaxis, axes.set_xscale, axes.set_xlabel)
    _label(figure, axes, points)
    _write(figure, path)


def plot_growth(lines: Sequence[Line], note: str, path: Path) -> None:
    """Writes a PNG of the median latency against the number of people."""
    figure, axes = _figure("Latency against people in the picture", note)
    for line, mark, color in zip(lines, cycle(MARKS), cycle(COLORS)):
        style = "-" if line.ours else "--"
        axes.plot(line.people, line.milliseconds, style, marker=mark, color=color, markersize=5, label=line.title)
    axes.set_xticks(sorted({people for line in lines for people in line.people}))
    axes.set_xlabel("people")
    axes.set_xlim(left=0)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    _milliseconds(axes.yaxis, axes.set_yscale, axes.set_ylabel)
    _write(figure, path)


def _figure(title: str, note: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left")
    axes.grid(visible=True, which="both", alpha=0.2)
    figure.text(0.01, -0.02, note, fontsize=7, color="#555555", va="top")
    return figure, axes


def _label(figure: Figure, axes: Any, points: Sequence[Point]) -> None:
    """Writes each title beside its mark, at the first place where it covers no mark and no other title."""
    figure.draw_without_rendering()  # fixes where the axes lie
    marks = [axes.transData.transform((point.milliseconds, point.accuracy)) for point in points]
    taken = [Bbox.from_bounds(x - MARK, y - MARK, 2 * MARK, 2 * MARK) for x, y in marks]
    for point in points:
        for up in PLACES:
            title = axes.annotate(
                point.title, (point.milliseconds, point.accuracy), (6, up), textcoords="offset points", fontsize=8
            )
            box = title.get_window_extent()
            if not any(box.overlaps(other) for other in taken) or up == PLACES[-1]:
                taken.append(box)
                break
            title.remove()


def _milliseconds(axis: Any, scale: Any, label: Any) -> None:
    scale("log")
    label("ms a picture, from its pixels to the poses")
    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())


def _write(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
