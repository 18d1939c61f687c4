import json
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from posesdk_runtimes.errors import DataError
from posesdk_training.evaluation.ground_truth import load_ground_truth
from posesdk_training.report.folder import Evaluation, saved_evaluation, write_report

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Pictures, text and the tags that are open at the end."""

    def __init__(self, source):
        super().__init__()
        self.open, self.images, self.faults, self.sources, self.text = [], [], [], [], ""
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.sources += [values[key] for key in ("src", "href") if key in values]
        if tag == "img":
            self.images.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        self.text += data


def evaluation(small, results=None, **changes):
    report = {"stats": {"AP": 0.5}, "data": {"image_ids": [1, 2, 3, 4, 5], "images": 5, "persons": 3}, "conditions": {}}
    values = {
        "truth": small.truth,
        "images": small.folder,
        "score_threshold": 0.1,
        "keypoint_threshold": 0.2,
        **changes,
    }
    return Evaluation(report, small.results if results is None else results, skeleton=small.skeleton, **values)


@pytest.fixture
def written(small, tmp_path):
    folder = tmp_path / "Bericht ü"
    page = write_report(evaluation(small), folder)
    return folder, Page(page.read_text("utf-8"))


def test_page_is_well_formed_and_needs_nothing_from_elsewhere(written):
    _folder, page = written
    assert (page.open, page.faults) == ([], [])
    assert all(source.startswith(("#", "pictures/")) for source in page.sources)


def test_pictures_exist_say_what_they_show_and_have_their_size(written):
    folder, page = written
    assert len(page.images) == 2 * 5  # cases 2, 2, 3, 2, 1 with two views each
    for image in page.images:
        pixels = cv2.imdecode(np.frombuffer((folder / image["src"]).read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        assert (int(image["width"]), int(image["height"])) == (pixels.shape[1], pixels.shape[0])
        assert image["alt"]
    assert "2 ü.png with 2 people labelled, 1 missed" in [image["alt"] for image in page.images]


def test_folder_holds_what_the_page_can_be_made_of_again(small, written, tmp_path):
    folder, _page = written
    saved = saved_evaluation(folder / "report.json", folder / "results.json", small.annotations, small.folder)
    again = write_report(saved, tmp_path / "again")
    assert again.read_text("utf-8") == (folder / "index.html").read_text("utf-8")
    assert json.loads((folder / "report.json").read_text())["skeleton"]["name"] == "triangle"


def test_fewer_pictures_than_cases_can_be_asked_for(small, tmp_path):
    page = Page(write_report(evaluation(small), tmp_path / "r", count=0).read_text("utf-8"))
    assert page.images == []
    assert "Charts" in page.text


def test_pictures_of_an_earlier_report_are_gone_and_nothing_else(small, tmp_path):
    write_report(evaluation(small), tmp_path)
    pictures = tmp_path / "pictures"
    (pictures / "99-found.jpg").write_bytes(b"of an earlier one")
    (pictures / "my-found.jpg").write_bytes(b"of the user")
    write_report(evaluation(small), tmp_path, count=1)
    shown = {source.rpartition("/")[2] for source in Page((tmp_path / "index.html").read_text()).sources}
    assert {path.name for path in pictures.iterdir()} == {name for name in shown if name.endswith(".jpg")} | {
        "my-found.jpg"
    }


def test_no_results_show_who_was_missed(small, tmp_path):
    page = Page(write_report(evaluation(small, []), tmp_path / "r").read_text("utf-8"))
    assert "2 of 2 persons missed" in page.text
    assert "People found, by their height" in page.text
    assert "Precision over recall" not in page.text


def test_set_without_people_and_results_says_that_there_is_nothing(small, tmp_path):
    small.annotations.write_text(json.dumps({**small.tree, "annotations": []}))
    truth = load_ground_truth(small.annotations, small.skeleton)
    page = Page(write_report(evaluation(small, [], truth=truth), tmp_path / "r").read_text("utf-8"))
    assert page.images == []
    assert "there is nothing to show" in page.text


def test_missing_and_damaged_photos_are_named_on_the_page(small, tmp_path):
    (small.folder / "2 ü.png").unlink()
    (small.folder / "3 ü.png").write_bytes(b"no picture")
    page = Page(write_report(evaluation(small), tmp_path / "r").read_text("utf-8"))
    assert "cannot read image" in page.text
    assert {image["src"].split("/")[1].split("-")[0] for image in page.images} == {"1"}


def test_file_names_cannot_break_the_page(small, tmp_path):
    name = '<script>"1&.png'
    (small.folder / "1 ü.png").rename(small.folder / name)
    small.tree["images"][0]["file_name"] = name
    small.annotations.write_text(json.dumps(small.tree))
    truth = load_ground_truth(small.annotations, small.skeleton)
    page = Page(write_report(evaluation(small, truth=truth), tmp_path / "r").read_text("utf-8"))
    assert (page.open, page.faults) == ([], [])
    assert name in page.text


def test_labels_of_another_file_are_refused(small, written, tmp_path):
    folder, _ = written
    small.annotations.write_text(json.dumps({**small.tree, "images": small.tree["images"][:3]}))
    with pytest.raises(DataError, match="has no image 4"):
        saved_evaluation(folder / "report.json", folder / "results.json", small.annotations, small.folder)


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', '[{"image_id": 1}]'])
def test_files_that_are_no_results_are_refused(small, written, content):
    folder, _ = written
    (folder / "results.json").write_text(content)
    with pytest.raises(DataError, match="results"):
        saved_evaluation(folder / "report.json", folder / "results.json", small.annotations, small.folder)


def test_folder_that_cannot_be_made_is_named(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_report(evaluation(small), tmp_path / "file" / "r")
