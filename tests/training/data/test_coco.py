"""Annotation files of all kinds: what is read from them, what is repaired, and what is refused."""

import json
import logging

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from posesdk.skeleton import COCO_17, CROWDPOSE_14, Skeleton
from posesdk_runtimes.errors import DataError
from posesdk_training.data.box_regions import box_without
from posesdk_training.data.coco import load_keypoint_set
from posesdk_training.settings.data import DatasetConfig

PERSON = {"id": 7, "image_id": 1, "bbox": [1, 2, 3, 4], "keypoints": [1, 2, 2] * 17}
TREE = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [PERSON], "categories": []}
PAIR = Skeleton(name="pair", keypoints=("left", "right"), edges=(), flip_pairs=((0, 1),), sigmas=(0.1, 0.1))


def load(folder, content, model=COCO_17, images=None, **config):
    path = folder / "truth.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    source = DatasetConfig(name="set", annotations=path, images=images or folder, **config)
    return load_keypoint_set(source, model)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"{",
        [1, 2],
        {"images": []},
        TREE | {"images": [1]},
        TREE | {"images": [{"id": "x", "file_name": "a.png"}], "annotations": []},
        TREE | {"annotations": [PERSON | {"keypoints": [0.0] * 50}]},
        TREE | {"annotations": [PERSON | {"keypoints": ["a"] * 51}]},
        TREE | {"categories": ["person"]},
    ],
)
def test_file_of_another_kind_is_refused_by_name(tmp_path, content):
    with pytest.raises(DataError, match=r"'set'.*truth\.json"):
        load(tmp_path, content)


def test_missing_file_is_named_with_what_to_check(tmp_path):
    source = DatasetConfig(name="set", annotations=tmp_path / "none.json", images=tmp_path)
    with pytest.raises(DataError, match=r"cannot read .*none\.json: No such file.*data\.root"):
        load_keypoint_set(source, COCO_17)


def test_missing_image_folder_is_said_before_any_image_is_read(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        load(tmp_path, TREE, images=tmp_path / "nowhere")


@pytest.mark.parametrize("categories", [[], [{"id": 1, "name": "person", "keypoints": list(COCO_17.keypoints)}]])
def test_annotations_of_another_skeleton_are_refused(tmp_path, categories):
    with pytest.raises(DataError, match="17"):
        load(tmp_path, TREE | {"categories": categories}, PAIR)


def test_person_without_a_keypoint_list_is_unlabelled(tmp_path):
    person = {key: value for key, value in PERSON.items() if key != "keypoints"}
    (image,) = load(tmp_path, TREE | {"annotations": [person]}).images
    assert not image.persons[0].is_labelled
    assert len(image.masked) == 1


def two(number=1, keypoints=(10, 10, 2, 20, 30, 1), **changes):
    """An annotation of two keypoints in an image of 100 x 80 px."""
    entry = {"id": number, "image_id": 1, "bbox": [5, 5, 30, 40], "area": 900, "keypoints": keypoints}
    return {key: value for key, value in (entry | changes).items() if value is not None}


def pairs(*annotations, images=None):
    return {
        "images": images or [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}],
        "annotations": list(annotations),
        "categories": [{"id": 1, "name": "pair", "keypoints": ["left", "right"]}],
    }


def test_image_of_a_labelled_an_unlabelled_and_a_crowd_person(tmp_path):
    unlabelled = two(2, [0] * 6, bbox=[40, 10, 20, 20])
    crowd = two(3, [0] * 6, bbox=[0, 0, 100, 80], iscrowd=1, segmentation=[[0, 0, 100, 0, 100, 80]])
    (image,) = load(tmp_path, pairs(two(), unlabelled, crowd), PAIR).images
    assert [person.is_labelled for person in image.persons] == [True, False]
    assert image.masked == ([[40, 10, 60, 10, 60, 30, 40, 30]], [[0, 0, 100, 0, 100, 80]])


def test_images_without_annotations_are_kept_unless_only_those_with_persons_are_wanted(tmp_path):
    images = [{"id": number, "file_name": f"{number}.png"} for number in (1, 2)]
    every = load(tmp_path, pairs(two(), images=images), PAIR)
    assert [(image.image_id, len(image.persons), image.masked) for image in every.images] == [(1, 1, ()), (2, 0, ())]
    assert len(load(tmp_path, pairs(two(), images=images), PAIR, only_with_persons=True).images) == 1


FAULTS = {
    "keypoint-outside": (two(keypoints=[150, 10, 2, 20, 30, 1]), "1 keypoints lie outside"),
    "keypoint-nan": (two(keypoints=[float("nan"), 10, 2, 20, 30, 1]), "1 keypoints are no numbers"),
    "keypoint-infinite": (two(keypoints=[10, float("inf"), 2, 20, 30, 1]), "1 keypoints are no numbers"),
    "keypoint-null": (two(keypoints=[None, 10, 2, 20, 30, 1]), "1 keypoints are no numbers"),
    "visibility-nan": (two(keypoints=[10, 10, float("nan"), 20, 30, 1]), "1 keypoints are no numbers"),
    "visibility-negative": (two(keypoints=[10, 10, -1, 20, 30, 1]), "1 keypoints have a visibility other"),
}


@pytest.mark.parametrize(("annotation", "warning"), FAULTS.values(), ids=FAULTS.keys())
def test_keypoint_that_cannot_be_used_is_left_out_with_a_counted_warning(tmp_path, caplog, annotation, warning):
    found = load(tmp_path, pairs(annotation), PAIR)
    (person,) = found.images[0].persons
    assert person.keypoints[0, 2] == 0
    assert person.keypoints[1].tolist() == [20, 30, 1]
    assert np.isfinite(person.keypoints).all()
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"data set set: {fault}" for fault in found.faults
    ]
    assert str(found.faults[0]).startswith(warning)
    assert str(found.faults[0]).endswith("first: annotation 1")


def test_faults_of_a_kind_are_counted_in_one_warning(tmp_path, caplog):
    far = [150, 10, 2, 20, 300, 1]
    found = load(tmp_path, pairs(two(4, far), two(5), two(6, far)), PAIR)
    assert [(fault.count, fault.first) for fault in found.faults] == [(4, "annotation 4")]
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


@pytest.mark.parametrize("point", [(-1, -1), (100, 80), (0, 79.5), (-2, 40)])
def test_keypoint_on_the_border_is_kept(tmp_path, point):
    found = load(tmp_path, pairs(two(keypoints=[*point, 2, 20, 30, 1])), PAIR)
    assert found.images[0].persons[0].keypoints[0].tolist() == [*point, 2]
    assert found.faults == ()


def test_image_whose_size_is_not_given_has_no_outside(tmp_path):
    images = [{"id": 1, "file_name": "a.png"}]
    found = load(tmp_path, pairs(two(keypoints=[150, 10, 2, 20, 30, 1]), images=images), PAIR)
    assert found.images[0].persons[0].keypoints[0].tolist() == [150, 10, 2]


def test_visibility_above_two_is_visible(tmp_path):
    found = load(tmp_path, pairs(two(keypoints=[10, 10, 3, 20, 30, 1])), PAIR)
    assert found.images[0].persons[0].keypoints[:, 2].tolist() == [2, 1]
    assert "visibility" in found.faults[0].kind


@pytest.mark.parametrize("box", [None, [1, 2], [5, 5, 0, 10], [5, 5, 10, -3], [5, 5, float("nan"), 9], [200, 5, 9, 9]])
def test_box_that_is_none_is_taken_from_mask_or_keypoints(tmp_path, box):
    by_mask = two(1, bbox=box, segmentation=[[8, 9, 30, 9, 30, 50, 8, 50], [12, 60, 14, 60, 14, 62]])
    by_points = two(2, bbox=box)
    found = load(tmp_path, pairs(by_mask, by_points), PAIR)
    first, second = found.images[0].persons
    assert first.box.tolist() == [8, 9, 30, 62]
    # Keypoints at (10, 10) and (20, 30): an eighth of 10 x 20 more on every side.
    assert second.box.tolist() == [8.75, 7.5, 21.25, 32.5]
    assert [(fault.count, fault.first) for fault in found.faults] == [(2, "annotation 1")]


@pytest.mark.parametrize("compressed", [True, False])
def test_box_is_taken_from_a_run_length_encoding(tmp_path, compressed):
    pixels = np.zeros((80, 100), np.uint8, order="F")
    pixels[20:31, 40:46] = 1
    if compressed:
        encoding = coco_mask.encode(pixels)
        encoding["counts"] = encoding["counts"].decode()
    else:
        flat = pixels.flatten(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        encoding = {"size": [80, 100], "counts": np.diff([0, *edges, len(flat)]).tolist()}
    (image,) = load(tmp_path, pairs(two(1, [0] * 6, bbox=None, segmentation=encoding)), PAIR).images
    assert image.persons[0].box.tolist() == [40, 20, 46, 31]
    assert image.masked == (encoding,)


def test_person_who_may_be_anywhere_costs_its_image(tmp_path):
    images = [{"id": number, "file_name": f"{number}.png", "width": 100, "height": 80} for number in (1, 2)]
    found = load(tmp_path, pairs(two(1, None, bbox=None), two(2, image_id=2), images=images), PAIR)
    assert [image.image_id for image in found.images] == [2]
    assert "which is left out" in found.faults[0].kind


def test_box_over_the_border_is_cut_and_its_area_stays(tmp_path):
    found = load(tmp_path, pairs(two(bbox=[-20, 10, 60, 90], area=None)), PAIR)
    (person,) = found.images[0].persons
    assert person.box.tolist() == [0, 10, 40, 80]
    assert person.area == 60 * 90
    assert "cut at its border" in found.faults[0].kind


@pytest.mark.parametrize("area", [-5, 0, float("nan"), "12"])
def test_area_that_is_none_is_taken_from_the_box(tmp_path, area):
    found = load(tmp_path, pairs(two(area=area)), PAIR)
    assert found.images[0].persons[0].area == 30 * 40
    assert "areas" in found.faults[0].kind


@pytest.mark.parametrize(
    "mask", [[[1, 2, 3]], [1, 2, 3, 4, 5, 6], {"size": [80, 100]}, [[1, 2, 3, 4, 5, float("nan")]]]
)
def test_malformed_mask_is_replaced_by_the_box(tmp_path, mask):
    found = load(tmp_path, pairs(two(1, [0] * 6, segmentation=mask)), PAIR)
    assert found.images[0].masked == ([[5, 5, 35, 5, 35, 45, 5, 45]],)
    assert "masks" in found.faults[0].kind


def test_annotation_of_an_unknown_image_is_left_out(tmp_path):
    found = load(tmp_path, pairs(two(), two(2, image_id=99)), PAIR)
    assert len(found.images[0].persons) == 1
    assert (found.faults[0].count, found.faults[0].first) == (1, "annotation 2")


def test_image_entry_without_a_file_is_left_out_with_its_annotations(tmp_path):
    images = [{"id": 1}, {"file_name": "b.png"}, {"id": 2, "file_name": "c.png"}]
    found = load(tmp_path, pairs(two(), images=images), PAIR)
    assert [image.path.name for image in found.images] == ["c.png"]
    assert (found.faults[0].count, found.faults[0].first) == (2, "entry 1")


def test_image_listed_twice_is_read_once(tmp_path):
    found = load(tmp_path, pairs(two(), images=[{"id": 1, "file_name": "a.png"}] * 2), PAIR)
    assert [len(image.persons) for image in found.images] == [1]
    assert "twice" in found.faults[0].kind


def test_two_images_of_one_number_are_refused(tmp_path):
    images = [{"id": 1, "file_name": name} for name in ("a.png", "b.png")]
    with pytest.raises(DataError, match=r"image id 1 stands for a\.png and for b\.png"):
        load(tmp_path, pairs(two(), images=images), PAIR)


def test_keypoints_are_put_into_the_models_order_by_name(tmp_path):
    model = Skeleton(name="m", keypoints=("right_paw", "tail", "left_paw"), sigmas=(0.1,) * 3)
    tree = pairs(two()) | {"categories": [{"id": 1, "name": "cat", "keypoints": ["L_Paw", "R_Paw"]}]}
    found = load(tmp_path, tree, model)
    assert found.annotated.tolist() == [True, False, True]
    assert found.images[0].persons[0].keypoints.tolist() == [[20, 30, 1], [0, 0, 0], [10, 10, 2]]


def test_skeleton_in_the_configuration_wins_over_the_files(tmp_path):
    names = {"keypoints": ["right", "left"], "sigmas": 0.1}
    found = load(tmp_path, pairs(two()), PAIR, skeleton=names)
    assert found.images[0].persons[0].keypoints.tolist() == [[20, 30, 1], [10, 10, 2]]


def test_annotated_keypoints_are_those_of_the_set_in_any_spelling(tmp_path):
    coco = pairs(two()) | {"categories": [{"id": 1, "name": "person", "keypoints": ["l_hip", "r_hip"]}]}
    found = load(tmp_path, coco, COCO_17, annotated_keypoints=["l_hip"])
    assert [name for name, there in zip(COCO_17.keypoints, found.annotated, strict=True) if there] == ["left_hip"]
    with pytest.raises(DataError, match="tail"):
        load(tmp_path, coco, COCO_17, annotated_keypoints=["tail"])


def test_annotations_of_categories_without_keypoints_are_no_persons(tmp_path):
    tree = pairs(two(category_id=1), two(2, None, category_id=3, bbox=[1, 1, 5, 5]), two(3, category_id=1))
    tree["categories"].append({"id": 3, "name": "car"})
    (image,) = load(tmp_path, tree, PAIR).images
    assert len(image.persons) == 2
    assert image.masked == ()


def test_categories_with_different_keypoints_want_a_choice(tmp_path):
    tree = pairs(two(category_id=1), two(2, [7, 7, 2], category_id=2))
    tree["categories"].append({"id": 2, "name": "dot", "keypoints": ["left"]})
    with pytest.raises(DataError, match=r"categories: \[NAME\]"):
        load(tmp_path, tree, PAIR)
    found = load(tmp_path, tree, PAIR, categories=["dot"])
    assert found.images[0].persons[0].keypoints.tolist() == [[7, 7, 2], [0, 0, 0]]
    with pytest.raises(DataError, match="no category"):
        load(tmp_path, tree, PAIR, categories=["cow"])


CROWD_EDGES = [[16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12]]
"""The published files carry edges of COCO's 17 keypoints."""


def crowdpose():
    """Two images as CrowdPose writes them: no areas, persons with labels and num_keypoints 0, a crowd over all."""
    points = np.zeros((14, 3))
    points[0], points[13] = (10, 20, 2), (30, 40, 1)
    person = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "num_keypoints": 0, "bbox": [5, 6, 40, 50]}
    crowd = {"id": 2, "image_id": 1, "category_id": 1, "iscrowd": 1, "num_keypoints": 0, "bbox": [0, 0, 100, 80]}
    return {
        "images": [
            {"id": 1, "file_name": "1.jpg", "width": 100, "height": 80, "crowdIndex": 0.85},
            {"id": 2, "file_name": "2.jpg", "width": 100, "height": 80, "crowdIndex": 0},
        ],
        "annotations": [
            person | {"keypoints": points.reshape(-1).tolist()},
            crowd | {"keypoints": [0] * 42},
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": list(CROWDPOSE_14.keypoints), "skeleton": CROWD_EDGES}],
    }


def test_crowdpose_file_is_read_as_published(tmp_path):
    found = load(tmp_path, crowdpose(), CROWDPOSE_14)
    first, second = found.images
    assert (first.crowd_index, second.crowd_index) == (0.85, 0)
    (person,) = first.persons
    assert person.area == pytest.approx(0.53 * 40 * 50)
    assert np.flatnonzero(person.keypoints[:, 2]).tolist() == [0, 13]
    assert first.masked == (box_without([0, 0, 100, 80], [np.array([5, 6, 45, 56])]),)
    assert (second.persons, second.masked) == ((), ())
    assert found.annotated.all()
    assert found.faults == ()


def test_crowd_with_a_box_of_another_format_is_masked_whole(tmp_path):
    tree = crowdpose()
    for entry in tree["images"]:
        del entry["crowdIndex"]
    (first, _) = load(tmp_path, tree, CROWDPOSE_14).images
    assert first.masked == ([[0, 0, 100, 0, 100, 80, 0, 80]],)


def test_crowdpose_goes_into_a_coco_model_by_name(tmp_path):
    found = load(tmp_path, crowdpose(), COCO_17)
    unlabelled = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
    assert found.annotated.tolist() == [name not in unlabelled for name in COCO_17.keypoints]
    (person,) = found.images[0].persons
    assert np.flatnonzero(person.keypoints[:, 2]).tolist() == [COCO_17.keypoints.index("left_shoulder")]


def test_person_with_none_of_the_models_keypoints_is_masked(tmp_path):
    tree = crowdpose()
    tree["annotations"][0]["keypoints"][2] = 0  # the neck stays, which COCO does not have
    (image, _) = load(tmp_path, tree, COCO_17).images
    assert not image.persons[0].is_labelled
    assert len(image.masked) == 2


def test_format_can_be_given_where_the_file_does_not_show_it(tmp_path):
    tree = crowdpose()
    for entry in tree["images"]:
        del entry["crowdIndex"]
    area = 40 * 50
    assert load(tmp_path, tree, CROWDPOSE_14).images[0].persons[0].area == pytest.approx(area)
    given = load(tmp_path, tree, CROWDPOSE_14, format="crowdpose")
    assert given.images[0].persons[0].area == pytest.approx(0.53 * area)


OCHUMAN_NAMES = ("right_shoulder", "left_wrist", "head", "neck", "nose")
"""Five of its 19 are enough here."""


def ochuman():
    points = [[10, 20, 1], [0, 0, 0], [12, 5, 2], [14, 9, 1], [15, 8, 3]]
    polygon = [5, 4, 45, 4, 45, 54]
    person = {
        "bbox": [5, 4, 45, 54],
        "keypoints": np.ravel(points).tolist(),
        "segms": {"outer": [polygon], "inner": []},
    }
    bare = {"bbox": [50, 10, 90, 70], "keypoints": None, "segms": None, "max_iou": 0.6}
    image = {"image_id": "000017", "file_name": "000017.jpg", "width": 100, "height": 80}
    return {"keypoint_names": list(OCHUMAN_NAMES), "images": [image | {"annotations": [person, bare]}]}


def test_ochumans_own_file_is_converted_as_published(tmp_path):
    found = load(tmp_path, ochuman(), COCO_17)
    (image,) = found.images
    assert (image.image_id, image.path.name) == (17, "000017.jpg")
    person, bare = image.persons
    names = COCO_17.keypoints
    labelled = {names[index]: person.keypoints[index].tolist() for index in np.flatnonzero(person.keypoints[:, 2])}
    # Visible and hidden by the own body are 2, hidden by others is 1.
    assert labelled == {"right_shoulder": [10, 20, 2], "nose": [15, 8, 1]}
    assert person.box.tolist() == [5, 4, 45, 54]
    assert person.area == 40 * 50
    assert not bare.is_labelled
    assert image.masked == ([[50, 10, 90, 10, 90, 70, 50, 70]],)
    assert found.faults == ()


def test_ochuman_in_coco_format_is_read_as_coco(tmp_path):
    points = np.full((17, 3), 2.0)
    person = {"id": 1, "image_id": 1, "bbox": [1, 1, 20, 30], "area": 600, "keypoints": points.reshape(-1).tolist()}
    tree = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [person], "categories": []}
    given = load(tmp_path, tree, COCO_17, format="ochuman").images[0].persons[0]
    assert given.area == 600
    assert (given.keypoints == 2).all()
