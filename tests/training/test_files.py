import cv2
import numpy as np
import pytest

from posesdk_runtimes.errors import DataError
from posesdk_training.files import (
    read_json,
    replaced,
    require_files,
    require_folder,
    require_folders,
    write_json,
    write_picture,
    write_text,
)


def test_failure_while_writing_leaves_what_was_there(tmp_path):
    path = tmp_path / "log.csv"
    write_text(path, "before")

    def fill():
        with replaced(path, sync=True) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"log\.csv: No space left on device; check the folder"):
        fill()
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.csv"]


def test_missing_folder_is_made_by_writing_and_named_by_the_check(tmp_path):
    path = tmp_path / "Bericht ü" / "a.json"
    with pytest.raises(DataError, match="there is no folder"):
        require_folders(None, path)
    write_json(path, {"name": "ü"})
    require_folders(None, path)
    assert path.read_text() == '{\n "name": "\\u00fc"\n}\n'


def test_folder_and_file_in_the_place_of_each_other_are_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    require_folders(tmp_path / "file", tmp_path / "new")
    require_folder(tmp_path / "folder")
    require_folder(tmp_path / "new")
    with pytest.raises(DataError, match="folder: it is a folder; give the name of a file"):
        require_folders(tmp_path / "file", tmp_path / "folder")
    with pytest.raises(DataError, match="file: it is a file; give a folder"):
        require_folder(tmp_path / "file")
    with pytest.raises(DataError, match="there is no folder"):
        require_folder(tmp_path / "absent" / "new")


def test_missing_file_is_named_with_the_option_that_gives_it(tmp_path):
    (tmp_path / "there").write_text("")
    require_files({"--a": None, "--b": tmp_path / "there"})
    with pytest.raises(DataError, match=r"absent: there is no such file; check --b"):
        require_files({"--a": None, "--b": tmp_path / "absent"})
    with pytest.raises(DataError, match="it is a folder; give a file with --a"):
        require_files({"--a": tmp_path})


def test_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_text(tmp_path / "file" / "a.txt", "a")


def test_written_png_holds_the_picture(tmp_path):
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    write_picture(tmp_path / "a.PNG", picture)
    data = np.frombuffer((tmp_path / "a.PNG").read_bytes(), np.uint8)
    assert np.array_equal(cv2.imdecode(data, cv2.IMREAD_COLOR), picture)
    with pytest.raises(DataError, match=r"as \.nothing"):
        write_picture(tmp_path / "a.nothing", picture)


@pytest.mark.parametrize(("content", "reason"), [(None, "No such"), (b"{", "not a JSON file"), (b"\xff\xfe", "JSON")])
def test_unreadable_json_is_named(tmp_path, content, reason):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"cannot read results .*a\.json: .*{reason}"):
        read_json(path, "results")
