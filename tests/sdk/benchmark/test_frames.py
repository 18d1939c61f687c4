"""Frames to measure with."""

import cv2
import numpy as np
import pytest

from posesdk.benchmark import frames as module
from posesdk.benchmark.frames import golden_frames, read_frames
from posesdk.bundle import open_bundle
from posesdk.detector import Detector
from posesdk.sources import open_source, read_image
from posesdk_runtimes.errors import BundleError, SourceError


@pytest.fixture
def folder(tmp_path, spots):
    for number, x in enumerate((40, 60, 90)):
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), spots([(x, 60)]))
    return tmp_path


@pytest.fixture
def clip(tmp_path, spots):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (192, 128))
    for x in range(20, 160, 10):
        writer.write(spots([(x, 60)]))
    writer.release()
    return path


def test_pictures_are_those_of_the_folder_decoded_anew(folder):
    found = read_frames(str(folder))
    assert len(found) == 3
    for number in range(3):
        image, milliseconds = found.load(number)
        assert np.array_equal(image, read_image(folder / f"{number}.png"))
        assert milliseconds > 0
    assert found.load(0)[0] is not found.load(0)[0]


def test_a_video_has_its_frames_in_order(clip):
    wanted = [frame.image for frame in open_source(clip)]
    found = read_frames(str(clip))
    assert len(found) == len(wanted)
    for number, image in enumerate(wanted):
        assert np.array_equal(found.load(number)[0], image)
        assert found.load(number)[1] > 0


def test_a_stream_goes_through_the_frames_over_and_over_until_its_time_is_up(tiny_folder, folder, clip):
    with Detector(tiny_folder, runtime="onnxruntime", threads=1) as detector:
        for source in (folder, clip):
            found = read_frames(str(source))
            wanted = [detector(found.load(number)[0]).keypoints for number in range(len(found))]
            stream = found.stream(detector, 60)
            for _ in range(2):
                for keypoints in wanted:
                    assert np.array_equal(next(stream).keypoints, keypoints)
            stream.close()
            assert list(found.stream(detector, 0)) == []


def test_a_long_source_is_used_from_its_beginning(clip, monkeypatch):
    monkeypatch.setattr(module, "MOST_FRAMES", 4)
    assert len(read_frames(str(clip))) == 4
    monkeypatch.setattr(module, "MOST_BYTES", 2 * 192 * 128 * 3)
    assert len(read_frames(str(clip))) == 2
    monkeypatch.setattr(module, "MOST_BYTES", 1)
    assert len(read_frames(str(clip))) == 1


def test_without_a_source_the_first_golden_picture_is_taken_or_the_default_models(
    tmp_path, make_bundle, tiny_folder, spots
):
    bare = open_bundle(make_bundle(tmp_path / "bare"))
    golden = read_image(tiny_folder / "golden" / "image.png")
    for bundles, default in (([bare, open_bundle(tiny_folder)], bare.path), ([bare], tiny_folder)):
        assert np.array_equal(golden_frames(bundles, default).load(0)[0], golden)
    with pytest.raises(BundleError, match="--source"):
        golden_frames([bare], bare.path)


def test_a_source_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        read_frames(str(tmp_path / "none.jpg"))


def test_what_of_a_source_cannot_be_read_is_left_out_with_a_warning(folder, clip, caplog):
    (folder / "1.png").write_text("no picture")
    found = read_frames(str(folder))
    assert [path for path, _ in found.files] == [str(folder / name) for name in ("0.png", "2.png")]
    whole = len(read_frames(str(clip)))
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    assert 0 < len(read_frames(str(clip))) < whole
    assert "1.png" in caplog.text


def test_a_folder_of_which_nothing_can_be_read_is_a_fault(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(SourceError, match=r"a\.png"):
        read_frames(str(tmp_path))


def test_pictures_of_several_sizes_are_told_from_those_of_one(folder, clip, spots):
    assert read_frames(str(folder)).one_size
    assert read_frames(str(clip)).one_size
    assert cv2.imwrite(str(folder / "9.png"), spots([(40, 60)], size=(90, 130)))
    assert not read_frames(str(folder)).one_size
