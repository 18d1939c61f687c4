import numpy as np
import pytest

from posesdk.poses import Poses
from posesdk_runtimes.errors import DataError
from posesdk_training.report.sheet import CAPTION, GAP, TILE, Photo, choose_photos, labelled_photos, picture_sheet


def nobody(image):
    return Poses(
        keypoints=np.zeros((0, 17, 2)), keypoint_scores=np.zeros((0, 17)), scores=[], image_size=image.shape[:2]
    )


def test_same_seed_takes_the_same_photos_another_seed_others(small):
    names = [[photo.path.name for photo in choose_photos(small.folder, 2, seed=seed)] for seed in (1, 1, 2, 3, 4, 5)]
    assert names[0] == names[1]
    assert len({tuple(chosen) for chosen in names}) > 1
    assert all(chosen == sorted(chosen) for chosen in names)


def test_fewer_photos_than_asked_for_are_all_taken(small):
    assert len(choose_photos(small.folder, 100)) == 5


def test_labelled_people_are_counted_without_crowds(small):
    listed, persons = labelled_photos(small.annotations, small.folder, small.skeleton)
    photos = choose_photos(small.folder, 5, listed=listed, persons=persons)
    assert [photo.persons for photo in photos] == [1, 2, 0, 0, 0]


def test_folder_without_photos_is_refused(tmp_path):
    with pytest.raises(DataError, match="no pictures"):
        choose_photos(tmp_path, 3)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (5, 5, 1), (7, 6, 2)])
def test_sheet_has_a_tile_for_every_photo(small, count, columns, rows):
    photos = [Photo(small.folder / "1 ü.png")] * count
    done = []
    sheet = picture_sheet(photos, nobody, on_photo=done.append)
    assert sheet.shape == (GAP + rows * (TILE + CAPTION + GAP), GAP + columns * (TILE + GAP), 3)
    assert done == list(range(1, count + 1))


def test_photo_that_cannot_be_read_leaves_a_tile_with_words(small):
    seen = []

    def detect(image):
        seen.append(image.shape)
        return nobody(image)

    sheet = picture_sheet([Photo(small.folder / "absent.png"), Photo(small.folder / "1 ü.png")], detect)
    assert seen == [(100, 150, 3)]
    assert len(np.unique(sheet[GAP : GAP + TILE, GAP : GAP + TILE].reshape(-1, 3), axis=0)) > 1
