import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from posesdk.sources import open_source, read_image, to_image
from posesdk_runtimes.errors import SourceError

COLORS = {"blue": (200, 20, 10), "green": (20, 200, 10), "red": (10, 20, 200)}


def plain(color: str, size=(6, 8)) -> np.ndarray:
    return np.full((*size, 3), COLORS[color], np.uint8)


def write(path: Path, color: str = "blue") -> Path:
    assert cv2.imwrite(str(path), plain(color))
    return path


def test_one_picture_is_one_frame_with_its_path(tmp_path):
    path = write(tmp_path / "a.png", "red")
    for source in (path, str(path)):
        stream = open_source(source)
        (frame,) = stream
        assert (frame.image == plain("red")).all()
        assert (frame.info.source, frame.info.index, frame.info.pts) == (str(path), 0, None)
        assert (stream.count, stream.pictures, stream.live) == (1, True, False)


def test_a_picture_is_known_by_content_where_its_name_says_nothing(tmp_path):
    path = write(tmp_path / "a.png").rename(tmp_path / "upload")
    assert [frame.image.shape for frame in open_source(path)] == [(6, 8, 3)]


def test_a_folder_gives_its_pictures_in_natural_order_and_nothing_else(tmp_path):
    for name in ("img10.png", "img2.jpg", "img1.bmp", "._img3.png"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    stream = open_source(tmp_path)
    frames = list(stream)
    assert [Path(frame.info.source).name for frame in frames] == ["img1.bmp", "img2.jpg", "img10.png"]
    assert [frame.info.index for frame in frames] == [0, 1, 2]
    assert stream.count == 3


def test_a_glob_gives_the_pictures_that_match(tmp_path):
    for name in ("a1.png", "a2.png", "b1.png"):
        write(tmp_path / name)
    frames = list(open_source(str(tmp_path / "a*")))
    assert [Path(frame.info.source).name for frame in frames] == ["a1.png", "a2.png"]


def test_a_file_whose_name_looks_like_a_glob_or_a_camera_is_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a[1].png", "7"):
        write(tmp_path / "x.png").rename(tmp_path / name)
        (frame,) = open_source(name)
        assert frame.info.source == name


def test_an_array_and_a_pil_image_are_one_frame_of_the_same_colors():
    image = pytest.importorskip("PIL.Image", reason="pillow is optional")
    picture = plain("red")
    picture[0, 0] = COLORS["green"]
    for source in (picture, image.fromarray(picture[..., ::-1])):
        (frame,) = open_source(source)
        assert (frame.image == picture).all()
        assert frame.info.source is None


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_a_pil_image_of_more_than_8_bits_is_not_cut_off(mode):
    image = pytest.importorskip("PIL.Image", reason="Pillow is optional")
    with pytest.raises(TypeError, match=f"8 bits a channel, got mode '{mode}'"):
        to_image(image.new(mode, (4, 3)))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_pil_image_of_a_cut_off_file_is_a_source_error(tmp_path, name):
    image = pytest.importorskip("PIL.Image", reason="Pillow is optional")
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    assert cv2.imwrite(str(path), noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with image.open(path) as opened, pytest.raises(SourceError, match=f"cannot read .*{name}"):
        to_image(opened)


def test_an_iterable_mixes_arrays_and_paths_and_stays_lazy(tmp_path):
    path = write(tmp_path / "a.png", "green")
    taken = []

    def frames():
        for item in (plain("red"), path, str(path)):
            taken.append(item)
            yield item

    stream = open_source(frames())
    assert stream.count is None
    iterator = iter(stream)
    assert not taken
    assert (next(iterator).image == plain("red")).all()
    assert len(taken) == 1
    rest = list(iterator)
    assert [frame.info.index for frame in rest] == [1, 2]
    assert [frame.info.source for frame in rest] == [str(path), str(path)]
    assert (rest[0].image == plain("green")).all()
    assert open_source([plain("red")] * 2).count == 2


def test_a_stack_of_images_is_iterated():
    assert len(list(open_source(np.zeros((3, 4, 5, 3), np.uint8)))) == 3


def test_grey_and_alpha_become_bgr():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    expected = np.stack([grey, grey, grey], axis=-1)
    assert (to_image(grey) == expected).all()
    assert (to_image(grey[..., None]) == expected).all()
    bgra = np.dstack([plain("blue"), np.zeros((6, 8), np.uint8)])
    assert (to_image(bgra) == plain("blue")).all()


def test_exif_orientation_turns_a_file(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="pillow is optional")
    picture = image.new("RGB", (8, 6))
    exif = picture.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees to show
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (8, 6, 3)


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        (np.zeros((4, 4, 3)), TypeError, "uint8, 0 to 255, got float64"),
        (np.zeros((4, 4, 2), np.uint8), ValueError, r"got \(4, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), ValueError, r"got \(2, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"got \(0, 4, 3\)"),
        (12, TypeError, "got int"),
    ],
)
def test_what_is_no_image_is_refused_with_what_was_expected(image, kind, message):
    with pytest.raises(kind, match=message):
        to_image(image)


def test_what_is_no_source_is_refused():
    for source in (None, 1.5, b"abc", True):
        with pytest.raises(TypeError, match="as source, got"):
            open_source(source)


def broken(tmp_path, kind) -> Path:
    path = tmp_path / "broken.png"
    if kind == "text":
        path.write_text("this is no picture" * 100)
    elif kind == "empty":
        path.touch()
    elif kind == "cut png":
        write(path)
        os.truncate(path, path.stat().st_size // 2)
    elif kind == "cut jpeg":
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        path = path.with_suffix(".jpg")
        cv2.imwrite(str(path), noise)
        os.truncate(path, path.stat().st_size // 2)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "damaged"),
        ("empty", r"empty \(0 bytes\)"),
        ("cut png", "cut off"),
        ("cut jpeg", "cut off"),
        ("missing", "no such file"),
    ],
)
def test_a_picture_that_cannot_be_read_is_one_line_with_its_name(tmp_path, kind, message, capfd):
    path = broken(tmp_path, kind)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if kind != "text":
        assert capfd.readouterr().err == ""


def test_a_missing_file_inside_a_readable_call_names_the_system_error(tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        read_image(tmp_path / "none.png")


def test_a_folder_or_glob_without_pictures_says_so(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(SourceError, match="holds no image"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match="no image matches"):
        open_source(str(tmp_path / "*.jpg"))
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(SourceError, match="holds videos but no image; videos are named one by one"):
        open_source(tmp_path)


@pytest.mark.parametrize(("name", "message"), [("", "its name is empty"), ("a" * 5000, "name too long")])
def test_a_name_that_no_file_can_have_is_one_clear_line(name, message):
    with pytest.raises(SourceError, match=f"(?i){message}"):
        open_source(name)


def test_a_name_that_is_not_utf8_is_read_or_refused_but_does_not_end_the_process(tmp_path):
    """OpenCV's Python crashes at one, so it must not get there."""
    name = os.fsdecode(b"caf\xe9")
    picture = write(tmp_path / "a.png", "green").rename(tmp_path / f"{name}.png")
    (frame,) = open_source(picture)
    assert (frame.image == plain("green")).all()
    for other in (f"{name}.mp4", name):
        (tmp_path / other).write_text("something")
        with pytest.raises(SourceError, match="names in UTF-8 only"):
            open_source(tmp_path / other)
    with pytest.raises(SourceError, match="names in UTF-8 only"):
        open_source(f"rtsp://127.0.0.1:9/{name}")


def test_a_folder_that_may_not_be_looked_into_is_one_clear_line(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(SourceError, match="Permission denied; check the path"):
        open_source(tmp_path)


@pytest.fixture
def folder_with_two_bad(tmp_path):
    for name in ("1.png", "3.png", "5.png"):
        write(tmp_path / name)
    (tmp_path / "2.png").write_text("bad")
    (tmp_path / "4.png").touch()
    return tmp_path


def test_bad_pictures_in_a_folder_are_told_and_the_rest_are_done(folder_with_two_bad):
    faults = []
    frames = list(open_source(folder_with_two_bad, faults.append))
    assert [frame.info.index for frame in frames] == [0, 2, 4]
    assert len(faults) == 2
    assert "2.png" in str(faults[0])
    assert "4.png" in str(faults[1])


def test_without_a_listener_the_error_comes_after_the_last_good_picture(folder_with_two_bad, caplog):
    frames = iter(open_source(folder_with_two_bad))
    assert [next(frames).info.index for _ in range(3)] == [0, 2, 4]
    with pytest.raises(SourceError, match="2 images could not be read"):
        next(frames)
    assert ["2.png" in record.getMessage() for record in caplog.records] == [True, False]
