import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from posesdk_training.report.charts import Bar, bars, histogram, precision_recall, recall_curve


def test_precision_and_recall_are_those_of_a_count_by_hand():
    scores = np.array([0.2, 0.9, 0.5, 0.7])
    right = np.array([True, True, False, True])
    recall, precision = precision_recall(scores, right, persons=5)
    by_hand = [(1, 1), (2, 2), (2, 3), (3, 4)]  # right ones and results at 0.9, 0.7, 0.5, 0.2
    assert recall == pytest.approx([hits / 5 for hits, _ in by_hand])
    assert precision == pytest.approx([hits / taken for hits, taken in by_hand])


def test_bar_is_as_long_as_its_value_and_says_it():
    root = ET.fromstring(bars("T", [Bar("a", 0.25), Bar("b", 0.5), Bar("c", None)]))
    lengths = [float(bar.get("width")) for bar in root.iter("rect")]
    assert lengths[1] == pytest.approx(2 * lengths[0])
    assert root.get("aria-label") == "T: a 0.25, b 0.50, c not measured"


def test_names_are_escaped():
    root = ET.fromstring(bars('<"T"&>', [Bar("<a&b>", 1.0)]))
    assert root.find("title").text == '<"T"&>'
    assert "<a&b>" in [text.text for text in root.iter("text")]


def test_curve_starts_at_the_best_score_and_marks_the_threshold():
    root = ET.fromstring(recall_curve("PR", np.array([0.0, 1.0]), np.array([1.0, 0.0]), mark=(1.0, 0.0)))
    points = re.findall(r"[\d.]+,[\d.]+", root.find("polyline").get("points"))
    (x0, y0), (x1, y1) = (tuple(map(float, point.split(","))) for point in points)
    assert x0 < x1
    assert y0 < y1  # y grows downwards
    mark = root.find("circle")
    assert (float(mark.get("cx")), float(mark.get("cy"))) == (x1, y1)


def test_histogram_holds_every_result():
    scores = np.array([0.1, 0.1, 0.39, 0.0])
    right = np.array([True, False, True, False])
    root = ET.fromstring(histogram("S", scores, right, 0.2))
    heights = {name: sum(float(r.get("height")) for r in root.iter("rect") if r.get("class") == name) for name in
               ("bar", "wrong")}  # fmt: skip
    assert heights["bar"] == pytest.approx(heights["wrong"])
    assert "2 right and 2 wrong" in root.get("aria-label")


def test_charts_of_nothing_are_still_pictures():
    empty = np.zeros(0)
    scores = ET.fromstring(histogram("S", empty, np.zeros(0, bool), 0.0))
    assert "0 right and 0 wrong" in scores.get("aria-label")
    assert {float(bar.get("height")) for bar in scores.iter("rect")} == {0.0}
    (line,) = ET.fromstring(recall_curve("PR", empty, empty)).iter("polyline")
    assert line.get("points") == ""
    assert [part.tag for part in ET.fromstring(bars("T", []))] == ["title"]
