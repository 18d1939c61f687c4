import io
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from posesdk.drawing import Drawing, target_kind
from posesdk.outputs import CocoOutput, JsonLinesOutput, JsonOutput, open_text
from posesdk.poses import FrameInfo, Poses
from posesdk.sources import open_source
from posesdk.video import Frame, FrameStream
from posesdk_runtimes.errors import PoseSDKError

PICTURES = FrameStream("pictures", iter([]), pictures=True)
VIDEO = FrameStream("clips/dance.mov", iter([]), fps=10.0)


def people(scores=(0.9, 0.02, 0.005), size=(48, 64)) -> Poses:
    rng = np.random.default_rng(1)
    return Poses(
        keypoints=rng.uniform(5, 40, (len(scores), 17, 2)),
        keypoint_scores=np.ones((len(scores), 17)),
        scores=scores,
        image_size=size,
    )


def add(output, source: str, stream=PICTURES, everyone=None, size=(48, 64), index=0):
    everyone = people(size=size) if everyone is None else everyone
    frame = Frame(np.zeros((*size, 3), np.uint8), FrameInfo(source, index))
    output.add(stream, frame, everyone.above(0.5), everyone)


def coco(*calls) -> list[dict]:
    file = io.StringIO()
    output = CocoOutput(file, Path("x"))
    for call in calls:
        add(output, *call)
    output.close()
    return json.loads(file.getvalue())


def test_json_is_one_object_with_every_frame_that_was_added():
    for count in (0, 1, 3):
        file = io.StringIO()
        output = JsonOutput(file, Path("x"))
        for index in range(count):
            add(output, "a.png", index=index)
        output.close()
        data = json.loads(file.getvalue())
        assert list(data) == ["v", "frames"]
        assert data["v"] == 1
        assert data["frames"] == [people().above(0.5).to_dict()] * count


def test_json_lines_are_one_object_each():
    file = io.StringIO()
    output = JsonLinesOutput(file, Path("x"))
    add(output, "a.png")
    add(output, "b.png")
    output.close()
    assert [json.loads(line)["v"] for line in file.getvalue().splitlines()] == [1, 1]


def test_coco_results_have_everyone_down_to_a_hundredth():
    results = coco(("7.jpg",))
    assert [entry["score"] for entry in results] == [0.9, 0.02]
    assert {(entry["image_id"], entry["file_name"]) for entry in results} == {(7, "7.jpg")}


def test_image_ids_are_numeric_names_and_else_running_numbers_that_no_picture_has():
    results = coco(("a.jpg",), ("x/000000000002.jpg",), ("b.jpg",), ("1.png",), ("y/2.jpg",), ("3.mp4", VIDEO))
    ids = {entry["file_name"]: entry["image_id"] for entry in results}
    assert ids == {"a.jpg": 3, "000000000002.jpg": 2, "b.jpg": 4, "1.png": 1, "2.jpg": 5, "3.mp4": 6}


def test_a_file_is_written_into_a_new_folder_and_a_failure_says_where(tmp_path):
    path = tmp_path / "new" / "x.json"
    with open_text(path) as file:
        file.write("data")
    assert path.read_text() == "data"
    with (
        pytest.raises(PoseSDKError, match=r"cannot write .*x\.json/y: (Not a directory|File exists)"),
        open_text(path / "y"),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "kind"),
    [("out", "folder"), ("out.PNG", "picture"), ("out.jpg", "picture"), ("out.mp4", "video"), ("v1.2", "folder")],
)
def test_what_is_drawn_to_follows_from_the_name(tmp_path, name, kind):
    assert target_kind(tmp_path / name) == kind
    (tmp_path / name).mkdir()
    assert target_kind(tmp_path / name) == "folder"


def test_pictures_are_drawn_under_their_own_names_and_none_twice(tmp_path):
    drawing = Drawing(tmp_path / "out")
    for source in ("a/x.jpg", "b/x.jpg", "c/y.avifs", "y"):
        add(drawing, source)
    drawing.close()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x-2.jpg", "x.jpg", "y-2.png", "y.png"]
    assert cv2.imread(str(tmp_path / "out" / "y.png")).any()
    assert drawing.count == 4


@pytest.mark.parametrize("size", [(48, 64), (33, 47)])
def test_a_video_is_drawn_with_all_frames_at_its_rate(tmp_path, size):
    for target, written in (
        (tmp_path / "out", tmp_path / "out" / "dance.mp4"),
        (tmp_path / "x.avi", tmp_path / "x.avi"),
    ):
        drawing = Drawing(target)
        for index in range(5):
            add(drawing, "clips/dance.mov", VIDEO, index=index, size=size)
        drawing.close()
        stream = open_source(written)
        frames = list(stream)
        assert (len(frames), stream.fps) == (5, 10.0)
        assert abs(frames[0].image.shape[0] - size[0]) <= 1
        assert frames[0].image.max() > 100


def test_two_videos_of_one_name_are_two_files(tmp_path):
    drawing = Drawing(tmp_path)
    for stream in (VIDEO, FrameStream("others/dance.mp4", iter([]))):
        add(drawing, stream.name, stream)
    drawing.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dance-2.mp4", "dance.mp4"]


def test_a_source_is_never_overwritten(tmp_path):
    source = tmp_path / "a.png"
    cv2.imwrite(str(source), np.zeros((48, 64, 3), np.uint8))
    before = source.read_bytes()
    for target in (source, tmp_path):
        with pytest.raises(PoseSDKError, match="it is the source itself"):
            add(Drawing(target), str(source))
    assert source.read_bytes() == before


def test_frames_of_another_size_do_not_go_into_a_video(tmp_path):
    drawing = Drawing(tmp_path / "x.mp4")
    add(drawing, "a", VIDEO)
    with pytest.raises(PoseSDKError, match="64x48 and the next frame 32x32"):
        add(drawing, "a", VIDEO, size=(32, 32))
    drawing.close()


@pytest.mark.parametrize("name", ["x.webm", "x.gif", "x.h264"])
def test_a_video_that_cannot_be_encoded_is_refused_at_once_and_in_one_line(tmp_path, capfd, name):
    with pytest.raises(PoseSDKError, match=r"end the name in one of \.avi, \.m4v, \.mkv, \.mov, \.mp4"):
        Drawing(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_a_video_of_one_pixel_is_refused_with_its_size(tmp_path):
    with pytest.raises(PoseSDKError, match="cannot encode 1x1 px in it"):
        add(Drawing(tmp_path / "x.mp4"), "a", VIDEO, size=(1, 1))


def test_a_video_whose_name_is_not_utf8_is_refused(tmp_path):
    drawing = Drawing(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    with pytest.raises(PoseSDKError, match="names in UTF-8 only"):
        add(drawing, "a", VIDEO)


@pytest.mark.parametrize("name", ["x.avi", "x.m4v", "x.mkv", "x.mov", "x.mp4"])
def test_a_video_that_is_lost_is_not_passed_over(tmp_path, name):
    """What a full disk leaves: the end of the file, where its index stands, is missing."""
    drawing = Drawing(tmp_path / name)
    add(drawing, "a", VIDEO)
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(PoseSDKError, match="check the free space"):
        drawing.close()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "notes").touch()
    with pytest.raises(PoseSDKError, match=r"cannot draw into .*notes: it is a file"):
        Drawing(tmp_path / "notes")
    (tmp_path / "file").touch()
    with pytest.raises(PoseSDKError, match=r"cannot write .*file"):
        Drawing(tmp_path / "file" / "folder")
    (tmp_path / "x.mp4").mkdir()
    drawing = Drawing(tmp_path / "y.mp4")
    (tmp_path / "y.mp4").mkdir()
    with pytest.raises(PoseSDKError, match=r"cannot write .*y\.mp4"):
        add(drawing, "a", VIDEO)
