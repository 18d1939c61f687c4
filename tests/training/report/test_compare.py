import json
from pathlib import Path

import pytest

from posesdk_runtimes.errors import DataError
from posesdk_training.report.compare import compare_reports, read_report, report_names

FULL = {
    "stats": {"AR": 0.4, "AP": 0.123456},
    "data": {"images": 300, "image_ids": [1, 2]},
    "recall": [
        {"group": "large", "score_threshold": 0.03, "found": 7, "recall": 0.7},
        {"group": "large", "score_threshold": 0.01, "found": 9, "recall": 0.9},
    ],
    "false_positives": {"persons": 2, "per_image": 0.2, "score_threshold": 0.03},
    "boxes": [{"area_mode": "bbox", "expand": 0, "bbp": {"all": 1.5}}],
    "conditions": {"adaptation": "full", "runtime": "torch", "versions": {"numpy": "2"}},
}
NONE = {
    "stats": {"AP": 0.06},
    "data": {"images": 300, "image_ids": [1, 2]},
    "recall": [{"group": "large", "score_threshold": 0.02, "found": 5, "recall": 0.5}],
    "false_positives": {"persons": 5, "per_image": 0.5, "score_threshold": 0.03},
    "conditions": {"adaptation": "none", "runtime": "torch", "versions": {"numpy": "2"}},
}


def test_every_figure_and_only_conditions_that_differ_are_rows():
    table = compare_reports({"full": FULL, "none": NONE})
    assert table.header == ("", "full", "none")
    assert table.rows == (
        ("AP", "0.123", "0.06"),
        ("AR", "0.4", "-"),
        ("recall: large", "0.7", "0.5"),
        ("false positives: per image", "0.2", "0.5"),
        ("adaptation", "full", "none"),
    )


def test_differences_are_from_the_first():
    rows = {row[0]: row[1:] for row in compare_reports({"a": FULL, "b": NONE}, difference=True).rows}
    assert rows["AP"] == ("0.123", "0.06 (-0.063)")
    assert rows["recall: large"] == ("0.7", "0.5 (-0.200)")
    assert rows["AR"] == ("0.4", "-")
    assert rows["adaptation"] == ("full", "none")


def test_figures_behind_others_are_shown_when_asked_for():
    rows = {row[0]: row[1:] for row in compare_reports({"a": FULL, "b": NONE}, everything=True, difference=True).rows}
    assert rows["false positives: persons"] == ("2", "5 (+3)")
    assert rows["recall: large: found"] == ("7", "5 (-2)")
    assert rows["boxes: bbox 0: bbp: all"] == ("1.5", "-")


def test_section_that_is_not_known_is_compared():
    table = compare_reports({"a": {"stats": {}, "new": {"figure": 1.5}}, "b": {"stats": {}}})
    assert table.rows == (("new: figure", "1.5", "-"),)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a.json", "runs/b.json"], ["a", "b"]),
        (["a/report.json", "b/report.json"], ["a", "b"]),
        (["x/a/report.json", "y/a/report.json"], ["1: x/a/report.json", "2: y/a/report.json"]),
        (["a/one.json", "b/one.json", "b/two.json"], ["a/one", "b/one", "b/two"]),
    ],
)
def test_names_are_as_short_as_tells_reports_apart(paths, names):
    assert report_names([Path(path) for path in paths]) == names


@pytest.mark.parametrize("content", ["", "[]", '{"stats": 3}', "\x00"])
def test_file_that_is_no_report_is_named(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"other\.json"):
        read_report(path)


def test_what_evaluate_wrote_is_read(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(FULL))
    assert read_report(path) == FULL
