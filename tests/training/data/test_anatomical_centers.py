import numpy as np
import pytest

from posesdk.skeleton import COCO_17, CROWDPOSE_14, Skeleton
from posesdk_runtimes.errors import DataError
from posesdk_training.data.anatomical_centers import BODY, HEAD, anatomical_centers, center_rules, labelled_channels

PLACES = {name: np.array([10.0 * k + k % 3, 7.0 * k - k**2]) for k, name in enumerate(COCO_17.keypoints)}
PLACES |= {"head": np.array([3.0, 1.0]), "neck": np.array([5.0, 21.0])}
"""Where each keypoint is, if it is labelled."""
SHOULDERS, HIPS = ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip")
FACE = COCO_17.keypoints[:5]


def person(skeleton, labelled):
    """(1, K, 3), junk where nothing is labelled."""
    points = np.full((1, len(skeleton), 3), 99.0, dtype=np.float32)
    points[..., 2] = 0
    for name in labelled:
        points[0, skeleton.keypoints.index(name)] = [*PLACES[name], 2]
    return points


def centers_of(skeleton, labelled, policy="fallback"):
    """Head, body (None where they are not known) and the step of the ladder."""
    found = anatomical_centers(person(skeleton, labelled), center_rules(skeleton), policy)
    head, body = (found.points[0, q] if found.valid[0, q] else None for q in (HEAD, BODY))
    return head, body, found.steps[0]


def mean(*names):
    return sum(PLACES[name] for name in names) / len(names)


LADDER = [
    # labelled, keypoints of the head's mean, body by hand, step
    ((*FACE, *SHOULDERS, *HIPS), FACE, (mean(*SHOULDERS) + mean(*HIPS)) / 2, "a"),
    ((*SHOULDERS, *HIPS), (), (mean(*SHOULDERS) + mean(*HIPS)) / 2, "a"),
    (("nose", "left_shoulder", *HIPS), ("nose",), (PLACES["left_shoulder"] + mean(*HIPS)) / 2, "a"),
    (("left_ear", "right_shoulder", "left_hip"), ("left_ear",), mean("right_shoulder", "left_hip"), "a"),
    (("nose", *SHOULDERS), ("nose",), mean(*SHOULDERS), "b"),
    ((*SHOULDERS, "left_knee"), (), mean(*SHOULDERS), "b"),
    (("left_eye", *HIPS), ("left_eye",), mean(*HIPS), "c"),
    ((*HIPS, "left_knee"), (), mean(*HIPS), "c"),
    (("left_shoulder", "left_knee"), (), mean("left_shoulder", "left_knee"), "d"),
    (("right_hip", "left_knee", "left_ankle"), (), mean("right_hip", "left_knee", "left_ankle"), "d"),
    (("left_wrist",), (), PLACES["left_wrist"], "d"),
    (("nose", "right_ear"), ("nose", "right_ear"), None, ""),
    (("nose", "left_shoulder", "left_knee"), ("nose",), None, ""),
    (("right_eye", "right_hip"), ("right_eye",), None, ""),
    ((), (), None, ""),
]
NAMES = [" ".join(name for name in labelled) or "nothing" for labelled, *_ in LADDER]


@pytest.mark.parametrize(("labelled", "head", "body", "step"), LADDER, ids=NAMES)
def test_truth_table_of_the_ladder(labelled, head, body, step):
    found_head, found_body, found_step = centers_of(COCO_17, labelled)
    assert found_step == step
    for found, expected in ((found_head, mean(*head) if head else None), (found_body, body)):
        assert (found is None) == (expected is None)
        if expected is not None:
            np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("labelled", "head", "body", "step"), LADDER, ids=NAMES)
def test_strict_policy_takes_shoulders_with_hips_alone(labelled, head, body, step):
    found_head, found_body, found_step = centers_of(COCO_17, labelled, "strict")
    assert (found_head is None) == (not head)
    assert found_step == ("a" if step == "a" else "")
    assert (found_body is None) == (step != "a")


@pytest.mark.parametrize(
    ("labelled", "head"),
    [
        (("head", "neck", *SHOULDERS), mean("head", "neck")),
        (("head", *SHOULDERS), PLACES["head"]),
        (("neck", *SHOULDERS), None),
    ],
    ids=["both", "top alone", "neck alone"],
)
def test_head_without_a_face_lies_between_its_top_and_the_neck(labelled, head):
    found, body, step = centers_of(CROWDPOSE_14, labelled)
    assert step == "b"
    np.testing.assert_allclose(body, mean(*SHOULDERS))
    assert (found is None) == (head is None)
    if head is not None:
        np.testing.assert_allclose(found, head)


def test_neck_alone_makes_the_body_of_all_that_is_labelled():
    head, body, step = centers_of(CROWDPOSE_14, ("neck", "left_shoulder"))
    assert (head, step) == (None, "d")
    np.testing.assert_allclose(body, mean("neck", "left_shoulder"))


def test_every_labelled_person_has_a_center_and_nobody_else():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100, (400, 17, 3)).astype(np.float32)
    points[..., 2] = 2 * (rng.random((400, 17)) < rng.uniform(0, 0.5, (400, 1)))
    found = anatomical_centers(points, center_rules(COCO_17))
    labelled = (points[..., 2] > 0).any(1)
    assert 0 < labelled.sum() < 400
    np.testing.assert_array_equal(found.valid.any(1), labelled)
    assert set(found.steps) == {"", "a", "b", "c", "d"}


def test_centers_move_with_the_keypoints():
    """So that it does not matter whether they are taken before or after the crop is made."""
    rng = np.random.default_rng(1)
    points = rng.uniform(0, 100, (50, 17, 3)).astype(np.float32)
    points[..., 2] = rng.integers(0, 3, (50, 17))
    linear, shift = np.array([[0.6, -0.3], [0.2, 0.9]], dtype=np.float32), np.array([4, -7], dtype=np.float32)
    moved = points.copy()
    moved[..., :2] = points[..., :2] @ linear.T + shift
    before, after = (anatomical_centers(value, center_rules(COCO_17)) for value in (points, moved))
    expected = before.points @ linear.T + shift
    np.testing.assert_allclose(after.points[before.valid], expected[before.valid], atol=1e-4)


def test_numbers_that_are_none_count_as_unlabelled():
    points = person(COCO_17, (*SHOULDERS, *HIPS))
    points[0, COCO_17.keypoints.index("left_hip"), :2] = np.nan, np.inf
    found = anatomical_centers(points, center_rules(COCO_17))
    np.testing.assert_allclose(found.points[0, BODY], (mean(*SHOULDERS) + PLACES["right_hip"]) / 2)


def test_no_persons_have_no_centers():
    found = anatomical_centers(np.zeros((0, 17, 3), dtype=np.float32), center_rules(COCO_17))
    assert found.points.shape == (0, 2, 2)
    assert found.valid.shape == (0, 2)


def test_keypoints_are_known_by_their_names():
    order = np.random.default_rng(2).permutation(17)
    spelled = [COCO_17.keypoints[k].replace("left_", "L ").replace("right_", "R ") for k in order]
    other = Skeleton(name="other", keypoints=tuple(spelled), sigmas=(0.05,) * 17)
    points = person(COCO_17, ("nose", "left_eye", *SHOULDERS, "left_hip"))
    one = anatomical_centers(points, center_rules(COCO_17))
    two = anatomical_centers(points[:, order], center_rules(other))
    np.testing.assert_allclose(one.points, two.points, rtol=1e-6)
    np.testing.assert_array_equal(one.valid, two.valid)


@pytest.mark.parametrize(
    ("gone", "named"),
    [(FACE, "face"), (("left_hip",), "left_hip"), (("right_shoulder",), "right_shoulder")],
    ids=["head", "hip", "shoulder"],
)
def test_skeleton_without_the_keypoints_is_an_error_that_names_them(gone, named):
    kept = tuple(name for name in COCO_17.keypoints if name not in gone)
    with pytest.raises(DataError, match=rf"hands has no head and body centers: there is no .*{named}.*centers"):
        center_rules(Skeleton(name="hands", keypoints=kept, sigmas=(0.05,) * len(kept)))


@pytest.mark.parametrize(
    ("annotated", "expected"),
    [
        (COCO_17.keypoints, [True, True]),
        (COCO_17.keypoints[5:], [False, True]),
        (FACE, [True, False]),
        (("left_knee", "right_knee"), [False, True]),  # as the mean of all that is labelled
    ],
    ids=["all", "no face", "face", "knees"],
)
def test_centers_that_a_set_can_have(annotated, expected):
    labels = np.array([name in annotated for name in COCO_17.keypoints])
    np.testing.assert_array_equal(labelled_channels(labels, center_rules(COCO_17)), [*labels, *expected])
    np.testing.assert_array_equal(labelled_channels(labels, None), [*labels, True])
