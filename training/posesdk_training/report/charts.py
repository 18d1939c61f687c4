"""Charts of an evaluation as inline SVG; colours come from the page's style (`currentColor`, `.bar`, `.line`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bar", "bars", "histogram", "precision_recall", "recall_curve"]

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 48, 20, 12, 44
"""Margins of a plot around its axes, in px."""
ROW, NAME = 22, 120
"""Height of a bar with its gap, and width of its name."""
BINS = 25


@dataclass(frozen=True, slots=True)
class Bar:
    """A named value in 0..1; None where nothing was measured."""

    name: str
    value: float | None


def bars(title: str, values: Sequence[Bar]) -> str:
    """Horizontal bars from 0 to 1, one a row."""
    height = ROW * len(values) + 6
    parts = []
    span = WIDTH - NAME - 60
    for row, bar in enumerate(values):
        y = row * ROW + 4
        parts.append(f'<text x="{NAME - 8}" y="{y + 12}" text-anchor="end">{escape(bar.name)}</text>')
        if bar.value is None:
            parts.append(f'<text x="{NAME}" y="{y + 12}">-</text>')
            continue
        length = span * min(max(bar.value, 0.0), 1.0)
        parts.append(f'<rect class="bar" x="{NAME}" y="{y}" width="{length:.1f}" height="{ROW - 7}" rx="2"/>')
        parts.append(f'<text x="{NAME + length + 6:.1f}" y="{y + 12}">{bar.value:.2f}</text>')
    told = ", ".join(f"{bar.name} {'not measured' if bar.value is None else f'{bar.value:.2f}'}" for bar in values)
    return _svg(title, f"{title}: {told}", parts, height)


def precision_recall(scores: Floats, right: NDArray[np.bool_], persons: int) -> tuple[Floats, Floats]:
    """Recall and precision (D,) after each of the results (D,), by descending score; `persons` are to be found."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order]).astype(np.float64)
    taken = np.arange(1, len(order) + 1)
    return hits / max(persons, 1), hits / taken


def recall_curve(title: str, recall: Floats, precision: Floats, mark: tuple[float, float] | None = None) -> str:
    """Precision over recall, both 0..1; `mark` is the point (recall, precision) at the model's threshold."""
    points = " ".join(f"{_x(r):.1f},{_y(p):.1f}" for r, p in zip(recall, precision, strict=True))
    parts = [*_axes("recall", "precision", (0, 1), (0, 1)), f'<polyline class="line" points="{points}"/>']
    told = f"{title}: precision falls to {precision[-1]:.2f} at recall {recall[-1]:.2f}" if len(recall) else title
    if mark is not None:
        parts.append(f'<circle class="mark" cx="{_x(mark[0]):.1f}" cy="{_y(mark[1]):.1f}" r="5"/>')
        told += f"; at the default threshold precision {mark[1]:.2f}, recall {mark[0]:.2f}"
    return _svg(title, told, parts, HEIGHT)


def histogram(title: str, scores: Floats, right: NDArray[np.bool_], threshold: float) -> str:
    """How many results have which score: right ones on top of wrong ones, the threshold as a line."""
    edges = np.linspace(0, _ceiling(max(float(scores.max(initial=0.0)), threshold)), BINS + 1)
    counts = [np.histogram(scores[chosen], edges)[0] for chosen in (~right, right)]
    top = _ceiling(float((counts[0] + counts[1]).max()))
    parts = _axes("score", "results", (0, float(edges[-1])), (0, top))
    width = _x(1 / BINS) - _x(0)
    for index, (wrong, good) in enumerate(zip(*counts, strict=True)):
        x, low = _x(index / BINS), _y(wrong / top)
        high = _y((wrong + good) / top)
        parts.append(
            f'<rect class="wrong" x="{x:.1f}" y="{low:.1f}" width="{width - 1:.1f}" height="{_y(0) - low:.1f}"/>'
        )
        parts.append(
            f'<rect class="bar" x="{x:.1f}" y="{high:.1f}" width="{width - 1:.1f}" height="{low - high:.1f}"/>'
        )
    at = _x(threshold / edges[-1])
    parts.append(f'<line class="level" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{_y(0):.1f}"/>')
    told = f"{title}: {int(right.sum())} right and {int((~right).sum())} wrong results, threshold {threshold:.4g}"
    return _svg(title, told, parts, HEIGHT)


def _ceiling(value: float) -> float:
    """The next number above whose quarters are short to write; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * next(step for step in (1, 2, 4, 8, 10) if step * power >= value * (1 - 1e-9)))


def _x(share: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * share


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def _axes(x_name: str, y_name: str, x_range: tuple[float, float], y_range: tuple[float, float]) -> list[str]:
    parts = []
    for step in range(5):
        share = step / 4
        x, y = _x(share), _y(share)
        x_value, y_value = (low + (high - low) * share for low, high in (x_range, y_range))
        parts.append(f'<line class="grid" x1="{_x(0)}" x2="{_x(1)}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{x:.1f}" y="{_y(0) + 16:.1f}" text-anchor="middle">{x_value:.3g}</text>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{y_value:.3g}</text>')
    parts.append(f'<text x="{_x(0.5):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{x_name}</text>')
    middle = f"{_y(0.5):.1f}"
    parts.append(f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{y_name}</text>')
    return parts


def _svg(title: str, told: str, parts: Sequence[str], height: int) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(told, quote=True)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
