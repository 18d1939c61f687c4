import json

import pytest
from typer.testing import CliRunner

from posesdk_runtimes.errors import DataError
from posesdk_training.program import app
from posesdk_training.report.card import filled_card, new_card, store_report, stored_reports

FULL = {"stats": {"AP": 0.25, "AR": 0.5}, "conditions": {"model": "m", "flip_test": False}}
NONE = {"stats": {"AP": 0.125}, "conditions": {"model": "m"}}
CARD = """# Card

Before.

<!-- measured: stats of full -->
old
<!-- end measured -->

Between.

<!-- measured: compare full none -->
<!-- end measured -->

After.
"""


def run(*words):
    return CliRunner().invoke(app, ["card", *(str(word) for word in words)])


def write(path, tree):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree))
    return path


def test_blocks_are_written_and_the_text_around_them_stays():
    filled = filled_card(CARD, {"full": FULL, "none": NONE})
    assert filled.replace("\n\n", "\n").splitlines() == [
        "# Card",
        "Before.",
        "<!-- measured: stats of full -->",
        "| AP | AR |",
        "| ---: | ---: |",
        "| 0.250 | 0.500 |",
        "<!-- end measured -->",
        "Between.",
        "<!-- measured: compare full none -->",
        "|   | AP | AR |",
        "| --- | ---: | ---: |",
        "| full | 0.250 | 0.500 |",
        "| none | 0.125 | - |",
        "<!-- end measured -->",
        "After.",
    ]


def test_filling_twice_changes_nothing():
    once = filled_card(CARD, {"full": FULL, "none": NONE})
    assert filled_card(once, {"full": FULL, "none": NONE}) == once


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("stats of other", "no report 'other'"),
        ("speed of full", "no section 'speed'"),
        ("nonsense", "cannot read the block"),
        ("stats of full -->\n<!-- measured: stats of none", "does not end"),
    ],
)
def test_block_that_cannot_be_filled_is_named(block, message):
    with pytest.raises(DataError, match=message):
        filled_card(f"<!-- measured: {block} -->\n<!-- end measured -->\n", {"full": FULL, "none": NONE})


def test_kept_report_has_no_folders_of_a_machine(tmp_path):
    data = {"annotations": "/home/me/sets/coco_eval/keypoints.json", "image_ids": [1, 2], "images": 2}
    report = write(tmp_path / "r.json", {**FULL, "data": data, "false_positives": {"folder": "/home/me/none/images"}})
    store_report(tmp_path / "card.md", "full", report)
    kept = stored_reports(tmp_path / "card.md")["full"]
    assert kept["data"] == {"annotations": "coco_eval/keypoints.json", "images": 2}
    assert "/home" not in json.dumps(kept)
    assert kept["stats"] == FULL["stats"]


def test_command_makes_a_card_then_fills_it_then_finds_it_fresh(tmp_path):
    card, report = tmp_path / "nano.md", write(tmp_path / "r.json", FULL)
    assert run(card).exit_code == 0
    assert card.read_text() == new_card("nano")
    card.write_text("<!-- measured: stats of full -->\n<!-- end measured -->\n")
    assert run(card, f"full={report}").exit_code == 0
    assert "| 0.250 | 0.500 |" in card.read_text()
    assert run(card, "--check").exit_code == 0


def test_check_fails_on_a_stale_figure_and_writes_nothing(tmp_path):
    card = tmp_path / "nano.md"
    write(tmp_path / "nano" / "full.json", FULL)
    stale = "<!-- measured: stats of full -->\n0.999\n<!-- end measured -->\n"
    card.write_text(stale)
    done = run(card, "--check")
    assert done.exit_code == 1
    assert "other figures than its reports" in done.stderr
    assert card.read_text() == stale


def test_report_without_a_name_is_a_usage_error(tmp_path):
    assert run(tmp_path / "c.md", tmp_path / "r.json").exit_code == 2
