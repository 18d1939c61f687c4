import pytest

from posesdk_training.report.grids import Table, number
from posesdk_training.report.markdown import markdown_report, markdown_table, plain_table
from posesdk_training.report.tables import report_sections

REPORT = {
    "protocol": "coco",
    "conditions": {"model": "m", "input": {"side": 320, "size": None}, "flip_test": False},
    "stats": {"AR": 0.5, "AP": 0.12345},
    "data": {"images": 3, "persons": 2, "image_ids": list(range(300))},
    "new_things": {"first thing": {"a": 1, "b": 0.25}, "second": {"a": 2}},
    "measurements": [{"x": 1.0, "y": {"p": 0.123456, "q": 2}}, {"x": None, "y": {"p": 0.5, "q": 3}}],
}


def sections():
    return {section.name: section for section in report_sections(REPORT)}


def test_accuracy_stands_first_conditions_last_and_all_between():
    assert list(sections()) == ["stats", "data", "new_things", "measurements", "conditions"]


def test_figures_of_coco_stand_in_its_order():
    table = sections()["stats"].tables[0]
    assert (table.header, table.rows) == (("AP", "AR"), (("0.123", "0.500"),))


def test_rows_of_an_unknown_section_become_a_table_of_all_their_keys():
    table = sections()["new_things"].tables[0]
    assert table.header == ("", "A", "B")
    assert table.rows == (("first thing", "1", "0.25"), ("second", "2", "-"))


def test_dictionaries_within_rows_become_columns_with_equally_many_digits():
    table = sections()["measurements"].tables[0]
    assert table.header == ("X", "Y p", "Y q")
    assert table.rows == (("1", "0.123", "2"), ("-", "0.500", "3"))


def test_single_values_join_the_conditions():
    assert dict(sections()["conditions"].tables[0].rows) == {
        "Protocol": "coco",
        "Model": "m",
        "Input": "side 320, size -",
        "Flip test": "no",
    }


def test_accuracies_at_any_depth_share_one_table():
    bound = {"window": 11, "initial": {"AP": 0.1}, "bounds": {"rule": {"stats": {"AP": 0.5}, "oks": 0.7}}}
    (section,) = [s for s in report_sections({"upper_bound": bound}) if s.name == "upper_bound"]
    assert section.tables[0].rows == (("initial", "0.100"), ("bounds rule", "0.500"))
    cells = [cell for table in section.tables[1:] for row in table.rows for cell in row]
    assert "bounds" not in [table.title.lower() for table in section.tables]  # whose title says what they are
    assert "11" in cells
    assert "0.7" in cells


def test_pck_stands_under_its_share():
    content = {"pck_shares": [0.2, 0.05], "rows": [{"name": "nose", "pck": [1.0, 0.5]}]}
    (section,) = [s for s in report_sections({"keypoints": content}) if s.name == "keypoints"]
    assert section.tables[-1].header == ("Name", "PCK 0.2", "PCK 0.05")
    assert section.tables[-1].rows == (("nose", "1", "0.5"),)


@pytest.mark.parametrize("persons", [0, 4])
def test_recall_of_tall_people_is_a_sentence(persons):
    tall = {"found": 0, "persons": persons, "score_threshold": 0.0343}
    section = next(s for s in report_sections({"tall_persons": tall}) if s.name == "tall_persons")
    assert section.sentences[0].startswith(f"0 of {persons} people")
    assert "0.0343" in section.sentences[0]
    assert section.tables == ()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0343, "0.0343"),
        (0.123456, "0.123"),
        (57.28914, "57.3"),
        (True, "yes"),
        (None, "-"),
        ([1, 2], "1, 2"),
        (list(range(20)), "20 values"),
        ({}, "-"),
        (float("nan"), "nan"),
    ],
)
def test_cells_are_short_and_settings_exact(value, text):
    assert number(value) == text


def test_markdown_has_every_heading_and_as_many_cells_as_columns():
    text = markdown_report(REPORT)
    assert text.startswith("# Evaluation of m on 3 images, 2 labelled persons\n")
    assert text.count("\n## ") == len(sections())
    for block in text.split("\n\n"):
        widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1


def test_text_cannot_break_a_markdown_table():
    line = markdown_table(Table(("a",), (("x|y\n<b> \\",),))).splitlines()[-1]
    assert line == "| x\\|y &lt;b> \\\\ |"


def test_names_stand_left_and_numbers_right():
    table = Table(("", "n"), (("a|b", "1"), ("c", "-")))
    assert markdown_table(table).splitlines()[1] == "| --- | ---: |"
    assert plain_table(Table(("", "n"), (("name", "1"), ("c", "22")))) == "       n\nname   1\nc     22"


def test_empty_report_is_a_heading():
    assert markdown_report({}).startswith("# Evaluation of model\n")
