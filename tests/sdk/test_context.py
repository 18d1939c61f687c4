"""The local context against the weighted sum of four taps."""

import numpy as np
import pytest

import plain_formulas
from posesdk.context import local_context
from posesdk.skeleton import COCO_17, CROWDPOSE_14, Skeleton
from posesdk.spec import AdaptationSpec, HeadSpec, ModelSpec

FRAMES = ("published", "consistent")
HUGE = Skeleton(name="huge", keypoints=("a", "b"), sigmas=(1.0, 0.001))


def _spec(frame, size=5, depth=3, skeleton=COCO_17):
    heads, adaptation = HeadSpec(embedding=depth), AdaptationSpec(local_size=size)
    return ModelSpec(name="tiny", frame=frame, skeleton=skeleton, heads=heads, adaptation=adaptation)


def _compare(spec, keypoints, height, width, seed=0):
    embedding = np.random.default_rng(seed).normal(size=(height, width, spec.heads.embedding)).astype(np.float32)
    keypoints = np.asarray(keypoints, np.float32)
    context, expected = (
        local_context(keypoints, embedding, spec),
        plain_formulas.local_context(keypoints, embedding, spec),
    )
    assert context.shape == expected.shape
    assert context.dtype == np.float32
    assert context.flags.c_contiguous
    np.testing.assert_allclose(context, expected, rtol=0, atol=2e-5)
    return context


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("size", [1, 3, 5, 7, 11])
@pytest.mark.parametrize("skeleton", [COCO_17, CROWDPOSE_14, HUGE], ids=lambda skeleton: skeleton.name)
def test_context_is_the_sum_of_four_taps_inside_and_far_beyond_the_borders(skeleton, size, frame):
    spec = _spec(frame, size, skeleton=skeleton)
    for seed, (height, width) in enumerate([(12, 16), (1, 5), (4, 1), (2, 2), (33, 9)]):
        places = np.random.default_rng(seed).uniform(-1, 2, (6, len(skeleton), 2)) * [4 * width, 4 * height]
        _compare(spec, places, height, width, seed)


@pytest.mark.parametrize("frame", FRAMES)
def test_samples_on_whole_cells_and_on_the_last_one_are_the_sums_of_their_taps(frame):
    """Where a tap's weight is exactly 0 or 1, and where the published sampler's ramp begins and ends."""
    origin = 0 if frame == "published" else 1.5
    edges = np.array([-1, -0.5, 0, 1, 6, 7, 7.25, 7.999, 8, 8.5]) * 4 + origin
    places = np.stack(np.meshgrid(edges, edges), axis=-1).reshape(-1, 1, 2)
    spec = _spec(frame, skeleton=HUGE.model_copy(update={"keypoints": ("a",), "sigmas": (0.1,)}))
    _compare(spec, places, 8, 8)


@pytest.mark.parametrize("persons", [0, 1, 30])
@pytest.mark.parametrize(("size", "depth"), [(5, 16), (11, 64)])
def test_context_of_any_number_of_people_is_that_of_each(persons, size, depth):
    """Of 30 the work is done in parts that hold less than a person, and more than one."""
    spec = _spec("consistent", size, depth)
    places = np.random.default_rng(5).uniform(-10, 90, (persons, 17, 2))
    context = _compare(spec, places, 18, 22)
    assert context.shape == (persons, 17 * depth, size, size)


def test_a_constant_embedding_is_seen_as_it_is_wherever_a_keypoint_lies():
    spec = _spec("consistent", 7)
    places = np.random.default_rng(1).choice([-1e30, -50, 3.3, 20, 1e4, 1e30], (8, 17, 2)).astype(np.float32)
    embedding = np.full((9, 11, 3), 0.7, np.float32)
    np.testing.assert_allclose(local_context(places, embedding, spec), 0.7, rtol=0, atol=1e-6)
