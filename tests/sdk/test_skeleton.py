"""Skeletons, and what the names of their keypoints say."""

import numpy as np
import pytest

from posesdk.draw import CENTER, LEFT, RIGHT, draw_poses
from posesdk.keypoint_names import canonical_names, keypoint_sides, left_right_pairs
from posesdk.poses import Poses
from posesdk.skeleton import COCO_17, CROWDPOSE_14, SKELETONS, Skeleton
from posesdk.spec import DecodeSpec, ModelSpec

SWAP = {"left": "right", "right": "left"}


def test_registered_skeletons_are_found_by_their_names():
    assert {name: skeleton.name for name, skeleton in SKELETONS.items()} == {
        "coco-17": "coco-17",
        "crowdpose-14": "crowdpose-14",
    }


@pytest.mark.parametrize("skeleton", [COCO_17, CROWDPOSE_14], ids=lambda skeleton: skeleton.name)
def test_flip_pairs_of_a_registered_skeleton_are_those_of_its_names(skeleton):
    swapped = [
        skeleton.keypoints.index(SWAP.get(name.split("_")[0], name.split("_")[0]) + name[len(name.split("_")[0]) :])
        for name in skeleton.keypoints
    ]
    assert skeleton.flip_indices.tolist() == swapped
    assert sorted(left_right_pairs(skeleton.keypoints)) == sorted(skeleton.flip_pairs)


def test_crowdpose_flips_as_published():
    assert CROWDPOSE_14.flip_indices.tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12, 13]


def test_shared_keypoints_of_coco_and_crowdpose_have_the_same_sigmas():
    coco = dict(zip(COCO_17.keypoints, COCO_17.sigmas, strict=True))
    crowd = dict(zip(CROWDPOSE_14.keypoints, CROWDPOSE_14.sigmas, strict=True))
    assert {name: coco[name] for name in coco.keys() & crowd.keys()} == {
        name: crowd[name] for name in coco.keys() & crowd.keys()
    }
    assert len(coco.keys() & crowd.keys()) == 12


@pytest.mark.parametrize(
    ("names", "sides"),
    [
        (("left_eye", "right_eye", "nose"), ("left", "right", None)),
        (("L_F_Paw", "R_F_Paw", "Root of tail"), ("left", "right", None)),
        (("LShoulder", "RShoulder", "Neck"), ("left", "right", None)),
        (("elbow.L", "elbow.R"), ("left", "right")),
        (("front left paw", "front right paw"), ("left", "right")),
        (("lwrist", "rwrist", "root"), ("left", "right", None)),
        (("leg", "rear", "ring", "lip"), (None,) * 4),
        (("left_right_middle", "1"), (None, None)),
    ],
)
def test_side_of_a_keypoint_is_read_from_its_name(names, sides):
    assert keypoint_sides(names) == sides
    pairs = left_right_pairs(names)
    assert pairs == (((0, 1),) if "left" in sides else ())


@pytest.mark.parametrize(
    "names",
    [
        ("l_shoulder", "r_shoulder", "head", "neck"),
        ("LShoulder", "RShoulder", "HeadTop", "UpperNeck"),
        ("Left Shoulder", "Right Shoulder", "top_head", "Neck"),
        ("lsho", "rsho", "head_top", "neck"),
        ("shoulder.L", "shoulder.R", "Head", "NECK"),
    ],
)
def test_spellings_of_the_same_keypoints_become_one(names):
    assert canonical_names(names) == ("left_shoulder", "right_shoulder", "head", "neck")


def test_canonical_names_of_coco_are_its_own():
    assert canonical_names(COCO_17.keypoints) == COCO_17.keypoints
    assert canonical_names(CROWDPOSE_14.keypoints) == CROWDPOSE_14.keypoints


@pytest.mark.parametrize(("count", "near"), [(17, 8), (14, 7), (5, 2), (1, 0)])
def test_suppression_asks_for_the_same_share_of_any_skeletons_keypoints(count, near):
    skeleton = Skeleton(name="any", keypoints=tuple(map(str, range(count))), sigmas=(0.1,) * count)
    assert ModelSpec(name="m", skeleton=skeleton).decode.nms_keypoints == near
    given = ModelSpec(name="m", skeleton=skeleton, decode=DecodeSpec(nms_keypoints=8))
    assert given.decode.nms_keypoints == 8
    again = ModelSpec.model_validate_json(given.model_dump_json())
    assert again == given


def test_sides_in_any_spelling_are_drawn_in_their_colors():
    horse = Skeleton(name="horse", keypoints=("L_Paw", "R_Paw", "Tail"), edges=(), sigmas=(0.1,) * 3)
    points = [(20, 20), (60, 20), (40, 60)]
    poses = Poses(keypoints=[points], keypoint_scores=[[1, 1, 1]], scores=[1], image_size=(80, 80), skeleton=horse)
    drawn = draw_poses(np.zeros((80, 80, 3), np.uint8), poses)
    assert [tuple(drawn[y, x].tolist()) for x, y in points] == [LEFT, RIGHT, CENTER]


def test_skeletons_are_equal_by_their_fields_whatever_has_been_worked_out_of_them():
    copies = [COCO_17.model_copy(deep=True) for _ in range(2)]
    for one in copies:
        assert len(one.flip_indices) == len(one.sigma_array) == len(one.sides) == 17
    assert copies[0] == copies[1]
    assert hash(copies[0]) == hash(copies[1])
    assert copies[0] != copies[1].model_copy(update={"name": "other"})
    assert copies[0] != copies[0].model_copy(update={"edges": ()})
    assert copies[0] != "coco-17"
