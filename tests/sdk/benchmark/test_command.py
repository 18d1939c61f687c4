"""`posesdk benchmark` as a user meets it."""

import json
import os
import pty
import re
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from posesdk.benchmark.startup import Fresh, _environment
from posesdk.commands import app
from posesdk.detector import Detector
from posesdk.manifest import Accuracy, Variant

GRAPHS = {"trunk": "portable/trunk.onnx", "adapt": "portable/adapt.onnx"}
QUICK = ("--seconds", "0.1", "--rounds", "3", "--threads", "1")


def benchmark(*arguments: object):
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


@pytest.fixture
def no_processes(monkeypatch):
    """Processes of their own are tested elsewhere, and take seconds."""

    def measure(entries, image, found, on_process):
        found.update({index: Fresh(100.0, 10.0, 50.0) for index in range(len(entries))})

    monkeypatch.setattr("posesdk.benchmark.command.measure_fresh", measure)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, tiny_folder, spots):
    """A COCO file whose people are those that the tiny model finds: its AP is 100."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "images").mkdir()
    images, annotations = [], []
    with Detector(tiny_folder, runtime="onnxruntime") as detector:
        for number, centers in enumerate([[(50, 60)], [(60, 50), (130, 80)]], start=1):
            picture = spots(centers)
            assert cv2.imwrite(str(folder / "images" / f"{number}.png"), picture)
            images.append({"id": number, "file_name": f"{number}.png"})
            for pose in detector(picture):
                x, y, right, bottom = map(float, pose.box)
                points = np.column_stack([pose.keypoints, np.full(17, 2)]).ravel().tolist()
                entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "num_keypoints": 17}
                entry |= {"bbox": [x, y, right - x, bottom - y], "area": (right - x) * (bottom - y), "iscrowd": 0}
                annotations.append(entry | {"keypoints": points})
    tree = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (folder / "keypoints.json").write_text(json.dumps(tree))
    return folder / "keypoints.json"


@pytest.fixture(scope="module")
def everything(tiny_folder, labelled):
    """One run of all parts, with its JSON."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("posesdk.benchmark.options.LEAST_SECONDS", 0.1)
        done = benchmark(
            *(tiny_folder, *QUICK, "--people", "1,3", "--batch", "1,2", "--sustained", "0.4s"),
            *("--evaluate", labelled, "--runtime", "onnxruntime", "--json", "-"),
        )
    assert done.exit_code == 0, done.stderr
    return done, json.loads(done.stdout)


def test_the_json_holds_every_part(everything):
    _, told = everything
    assert (told["v"], told["complete"], told["left_out"]) == (1, True, [])
    (entry,) = told["entries"]
    assert entry["accuracy"]["measured"]
    assert entry["accuracy"]["metrics"]["AP"] == pytest.approx(100, abs=0.1)
    assert entry["latency"]["frames"] == 3
    assert set(entry["latency"]["end_to_end_ms"]) == {"least", "p50", "p95", "p99"}
    stages = ["decode image", "preprocess", "trunk", "decode poses", "adapt", "postprocess", "draw"]
    assert list(entry["latency"]["stages_ms"]) == stages
    assert entry["latency"]["people"] == 2
    assert entry["throughput"]["frames_per_second"] > 0
    assert entry["fresh_process"]["peak_mib"] > 20
    assert {count: found["found"]["p50"] for count, found in entry["people"]["by_count"].items()} == {"1": 1, "3": 3}
    assert list(entry["batches"]) == ["1", "2"]
    assert len(entry["sustained"]["frames_per_second"]) == 10
    assert entry["net_size"] == {"height": 64, "width": 128}
    assert told["conditions"]["machine"]["runtimes"].keys() == {"onnxruntime"}


def test_every_table_is_whole_markdown(everything):
    done, _ = everything
    titles = [line for line in done.stderr.splitlines() if line.startswith("### ")]
    assert len(titles) == 5
    for block in done.stderr.split("### ")[1:]:
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len(rows) >= 3
        assert len({row.count("|") for row in rows}) == 1
    assert "machine: " in done.stderr
    assert "the golden picture of tiny, 1 frame of 192x128" in done.stderr
    assert "planted" in done.stderr


def test_the_recorded_accuracy_stands_in_with_the_name_of_its_data(tmp_path, make_bundle, spots, no_processes):
    variants = tuple(Variant(name=name, runtime=("onnxruntime",), **GRAPHS) for name in ("one", "two"))
    records = (
        Accuracy(variant="one", dataset="val", images=12, metrics={"AP": 0.345}),
        Accuracy(variant="float", dataset="other", images=7, metrics={"AP": 0.5}),
    )
    folder = make_bundle(tmp_path / "bundle", spots([(50, 60)]), variants=variants, accuracy=records)
    done = benchmark(folder, *QUICK)
    assert done.exit_code == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| tiny")]
    assert [float(row[2]) for row in rows[:2]] == [34.5, 50.0]
    assert "on val (12 images); of the float model as the bundle records it, on other (7 images)" in done.stdout


def test_an_entry_whose_backend_fails_is_told_and_the_others_are_measured(tmp_path, make_bundle, spots, no_processes):
    onnx = pytest.importorskip("onnx", reason="the test model is an ONNX file")
    folder = make_bundle(tmp_path / "bundle")
    model = onnx.load(folder / "portable" / "trunk.onnx")
    weights = next(entry for entry in model.graph.initializer if entry.name == "bias")
    weights.CopyFrom(onnx.numpy_helper.from_array(np.full(weights.dims, np.nan, np.float32), "bias"))
    (folder / "broken").mkdir()
    onnx.save(model, folder / "broken" / "trunk.onnx")
    more = {"runtime": ("onnxruntime",), "adapt": "portable/adapt.onnx"}
    variants = (
        Variant(name="broken", trunk="broken/trunk.onnx", **more),
        Variant(name="whole", trunk="portable/trunk.onnx", **more),
    )
    make_bundle(folder, variants=variants)
    assert cv2.imwrite(str(tmp_path / "picture.png"), spots([(50, 60)]))
    output = tmp_path / "all.json"
    done = benchmark(folder, *QUICK, "--source", tmp_path / "picture.png", "--json", output)
    assert done.exit_code == 1
    assert "1 of 2 entries failed, first tiny broken" in done.stderr
    told = json.loads(output.read_text())
    assert [entry["variant"] for entry in told["entries"]] == ["whole"]
    assert [(one["failed"], "not finite" in one["reason"]) for one in told["left_out"]] == [(True, True)]


def test_an_interrupted_run_shows_what_was_done_and_ends_with_130(tiny_folder, tmp_path, no_processes, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("posesdk.benchmark.command.BatchTimes.run", interrupted)
    output = tmp_path / "part.json"
    done = benchmark(tiny_folder, *QUICK, "--runtime", "onnxruntime", "--batch", "1,2", "--json", output)
    assert done.exit_code == 130
    assert "interrupted" in done.stdout
    assert "### Stages of a frame" in done.stdout
    assert "### Frames in batches" not in done.stdout
    told = json.loads(output.read_text())
    assert not told["complete"]
    assert told["entries"][0]["latency"]["frames"] == 3
    assert told["entries"][0]["batches"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("none.posebundle",), 4, "none.posebundle"),
        (("street.mp4",), 2, "give it as --source street.mp4"),
        (("last.safetensors",), 2, "posesdk-convert"),
        (("--runtime", "toaster"), 2, "toaster"),
        (("--precision", "bf16"), 2, "bf16"),
        (("--device", "npu"), 3, "npu"),
        (("--source", "none.jpg"), 6, "none.jpg"),
        (("--evaluate", "none-such.json"), 6, "none-such.json"),
        (("--limit", "3"), 2, "--evaluate"),
        (("--images", "."), 2, "--evaluate"),
        (("--people", "1,x"), 2, "--people"),
        (("--batch", "0"), 2, "--batch"),
        (("--batch", "99999"), 2, "from 1 to 256"),
        (("--sustained", "soon"), 2, "30s, 10m or 1h"),
        (("--sustained", "9s"), 2, "at least 10s"),
        (("--cpus", "9998-9999"), 2, "9998-9999"),
        (("--cpus", "3-1"), 2, "0,1 or 0-3,6"),
        (("--variant", "onnx-fp32", "--variant", "onnx-int8"), 2, "no variant 'onnx-int8'"),
        (("--runtime", "onnxruntime,"), 2, "names with commas"),
        (("--source", "a.png", "--source", "b.png"), 2, "one --source"),
        (("--threads", "100000"), 2, "--threads"),
        (("--seconds", "inf"), 2, "--seconds"),
        (("--json", "."), 1, "it is a folder"),
    ],
)
def test_wrong_usage_and_faults_end_as_those_of_other_commands(tiny_folder, no_processes, arguments, code, message):
    bundle = (tiny_folder,) if arguments[0].startswith("--") else ()
    done = benchmark(*bundle, *QUICK, *arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert done.stderr.lower().count("error") == 1


def test_a_report_that_cannot_be_written_is_told_before_the_work(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("posesdk.benchmark.command.find_entries", lambda *_: pytest.fail("the work has begun"))
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "report.json", "/proc/report.json"):
        done = benchmark(tiny_folder, *QUICK, "--json", output)
        assert done.exit_code == 1
        assert f"cannot write {output}" in done.stderr


def test_more_people_than_there_is_room_for_cost_their_own_table_alone(tiny_folder, no_processes):
    done = benchmark(tiny_folder, *QUICK, "--runtime", "onnxruntime", "--people", "1,1000")
    assert done.exit_code == 0, done.stderr
    assert "### Stages" in done.stdout
    assert "against people" not in done.stdout
    assert "left out tiny onnx-fp32 onnxruntime cpu with people: a network's input of 128x64 has no room" in done.stdout


def test_a_report_goes_into_a_pipe_and_leaves_it_there(tiny_folder, tmp_path, no_processes):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    done = benchmark(tiny_folder, *QUICK, "--runtime", "onnxruntime", "--json", pipe)
    reader.join(10)
    assert done.exit_code == 0, done.stderr
    assert json.loads(read[0])["complete"]
    assert pipe.is_fifo()


def test_labels_without_people_are_refused(tiny_folder, tmp_path, labelled):
    done = benchmark(tiny_folder, "--evaluate", labelled.parent / "images")
    assert done.exit_code == 6
    assert "labels nobody" in done.stderr


def on_a_terminal(table: str, columns: int) -> str:
    """What a terminal so wide shows of a table, which is Python code."""
    code = f"from posesdk.benchmark.tables import Table, show_table\nshow_table({table}, err=False)"
    leader, follower = pty.openpty()
    environment = _environment() | {"TERM": "xterm", "COLUMNS": str(columns)}
    subprocess.run([sys.executable, "-c", code], stdout=follower, check=True, env=environment)
    os.close(follower)
    drawn = os.read(leader, 65536).decode()
    os.close(leader)
    return re.sub(r"\x1b\[[0-9;]*m", "", drawn)


def test_on_a_terminal_the_table_is_drawn():
    drawn = on_a_terminal("Table('title', ('entry', 'ms'), (('[a] one', '1.5'),), ('a note',))", 80)
    for words in ("title", "[a] one", "1.5", "a note"):
        assert words in drawn
    assert "|---" not in drawn.replace(" ", "")
    assert "│" in drawn or "┃" in drawn


def test_on_a_narrow_terminal_every_figure_is_whole():
    figures = [f"{number}.25 ({number}.5)" for number in range(10, 18)]
    headings = ("entry", "", *(f"with {number} people" for number in range(8)))
    table = f"Table('title', {headings}, (('a model of two words', 'least', *{figures}),), texts=2)"
    lines = on_a_terminal(table, 60).splitlines()
    assert max(map(len, lines)) <= 60
    cells = [cell.strip() for line in lines for cell in line.split("│")]  # headings have other borders
    assert [cell for cell in cells if "(" in cell] == figures
    assert cells.count("least") > 1
    assert "…" not in "".join(lines)
