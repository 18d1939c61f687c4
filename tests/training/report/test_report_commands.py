import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from posesdk_training.program import app


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def evaluated(tiny_checkpoint, tiny_set, tmp_path_factory):
    """The report folder of a model with random weights on the tiny set."""
    annotations, images = tiny_set
    folder = tmp_path_factory.mktemp("evaluated") / "report"
    options = ("--annotations", annotations, "--images", images, "--device", "cpu", "--report", folder)
    done = run("evaluate", tiny_checkpoint, *options)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == str(folder / "index.html")
    return folder


def test_evaluation_writes_a_folder_to_read(evaluated):
    assert {path.name for path in evaluated.iterdir()} == {
        "index.html", "pictures", "report.json", "report.md", "results.json"
    }  # fmt: skip
    assert "## COCO keypoint accuracy" in (evaluated / "report.md").read_text("utf-8")
    assert list((evaluated / "pictures").glob("*.jpg"))


def test_report_is_made_again_from_its_files(evaluated, tiny_set, tmp_path):
    annotations, images = tiny_set
    files = (evaluated / "report.json", "--results", evaluated / "results.json")
    done = run("report", *files, "--annotations", annotations, "--images", images, "--output", tmp_path / "again")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "again" / "index.html")
    assert (tmp_path / "again" / "index.html").read_text() == (evaluated / "index.html").read_text()


def test_reports_stand_side_by_side(evaluated, tmp_path):
    other = json.loads((evaluated / "report.json").read_text())
    other["stats"] = {name: value + 0.25 for name, value in other["stats"].items()}
    (tmp_path / "other.json").write_text(json.dumps(other))
    done = run("compare", evaluated / "report.json", tmp_path / "other.json", "--markdown", "--difference")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == "|   | report | other |"
    assert "(+0.250)" in done.stdout


def test_sheet_is_a_picture_of_as_many_photos_as_asked_for(tiny_checkpoint, tiny_set, tmp_path):
    annotations, images = tiny_set
    sizes = []
    for count in (1, 6):
        output = tmp_path / f"{count}.png"
        options = ("--images", images, "--annotations", annotations, "--count", count, "--device", "cpu")
        done = run("sheet", tiny_checkpoint, *options, "--output", output)
        assert done.exit_code == 0, done.output
        sizes.append(cv2.imdecode(np.frombuffer(output.read_bytes(), np.uint8), cv2.IMREAD_COLOR).shape)
    assert sizes[1][1] > 5 * sizes[0][1]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("sheet", "MODEL", "--images", "IMAGES", "--output", "sheet.txt"), 1, "name it .png"),
        (("sheet", "MODEL", "--images", "IMAGES", "--output", "/nowhere/at/all.png"), 1, "no folder"),
        (("sheet", "MODEL", "--images", "/nowhere", "--output", "sheet.png"), 1, "no pictures"),
        (("compare", "/nowhere.json"), 1, "nowhere.json: there is no such file; check REPORTS"),
        (
            (
                "report",
                "MODEL",
                "--results",
                "/nowhere.json",
                "--annotations",
                "MODEL",
                "--images",
                "IMAGES",
                "-o",
                "a",
            ),
            1,
            "nowhere.json: there is no such file; check --results",
        ),
    ],
)
def test_faults_end_in_one_line_and_their_exit_code(tiny_checkpoint, tiny_set, words, code, message):
    places = {"MODEL": tiny_checkpoint, "IMAGES": tiny_set[1]}
    done = run(*(places.get(word, word) for word in words))
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
