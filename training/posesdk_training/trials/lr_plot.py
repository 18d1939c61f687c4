"""A learning-rate range test as a picture, a table and a CSV file."""

import csv
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from posesdk_training.files import replaced
from posesdk_training.trials.lr_finder import RangeTest, Suggestion, smooth

__all__ = ["curve_picture", "curve_table", "write_csv"]

WIDTH, HEIGHT, MARGIN = 800, 480, 56
INK, FAINT, CURVE, MARK = (40, 40, 40), (215, 215, 215), (180, 90, 20), (40, 40, 210)
"""BGR."""
ROWS = 16
TALLEST = 3.0
"""Losses above this many times the lowest are cut off: divergence would flatten the rest of the curve."""


def curve_picture(test: RangeTest, suggestion: Suggestion) -> NDArray[np.uint8]:
    """(480, 800, 3) uint8 BGR: losses and their smooth curve over the logarithm of the rate, the suggested rate."""
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    curve = smooth(test.losses)
    low = float(min(curve.min(), test.losses.min()))
    high = min(float(test.losses.max()), max(TALLEST * float(curve.min()), 1.1 * float(curve[0])))
    left, right = np.log10(test.rates[[0, -1]])

    def place(rate: float, loss: float) -> tuple[int, int]:
        x = MARGIN + (np.log10(rate) - left) / max(right - left, 1e-9) * (WIDTH - 2 * MARGIN)
        y = HEIGHT - MARGIN - (min(loss, high) - low) / max(high - low, 1e-9) * (HEIGHT - 2 * MARGIN)
        return round(float(x)), round(float(y))

    for power in range(int(np.ceil(left - 1e-9)), int(np.floor(right + 1e-9)) + 1):
        x, _ = place(10.0**power, low)
        cv2.line(picture, (x, MARGIN), (x, HEIGHT - MARGIN), FAINT, 1)
        _write(picture, f"1e{power}", (x - 16, HEIGHT - MARGIN + 20))
    for level in np.linspace(low, high, 5):
        _, y = place(float(test.rates[0]), float(level))
        cv2.line(picture, (MARGIN, y), (WIDTH - MARGIN, y), FAINT, 1)
        _write(picture, f"{level:.3g}", (4, y + 4))
    for values, colour, thickness in ((test.losses, (190, 190, 190), 1), (curve, CURVE, 2)):
        points = [place(float(rate), float(loss)) for rate, loss in zip(test.rates, values, strict=True)]
        cv2.polylines(picture, [np.array(points, np.int32)], False, colour, thickness, cv2.LINE_AA)
    if suggestion.rate is not None and test.rates[0] <= suggestion.rate <= test.rates[-1]:
        x, _ = place(suggestion.rate, low)
        cv2.line(picture, (x, MARGIN), (x, HEIGHT - MARGIN), MARK, 1)
        _write(picture, f"{suggestion.rate:.2g}", (x + 4, MARGIN + 12))
    _write(picture, "loss over learning rate", (MARGIN, MARGIN - 16))
    return picture


def _write(picture: NDArray[np.uint8], text: str, place: tuple[int, int]) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)


def curve_table(test: RangeTest) -> Table:
    """Rates, evenly spaced in their logarithm, with the smoothed loss and a bar."""
    curve = smooth(test.losses)
    low, high = float(curve.min()), min(float(curve.max()), TALLEST * float(curve.min()))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("rate", justify="right")
    table.add_column("loss", justify="right")
    table.add_column("")
    for index in np.unique(np.linspace(0, len(curve) - 1, ROWS).round().astype(int)):
        share = (min(float(curve[index]), high) - low) / max(high - low, 1e-9)
        table.add_row(f"{test.rates[index]:.2e}", f"{curve[index]:.4g}", "#" * round(40 * share))
    return table


def write_csv(test: RangeTest, path: Path) -> None:
    """A row for each step: rate, loss, smoothed loss. Raises DataError where it cannot be written."""
    columns = (test.rates.tolist(), test.losses.tolist(), smooth(test.losses).tolist())
    with replaced(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("learning_rate", "loss", "smoothed_loss"))
        writer.writerows(zip(*columns, strict=True))
