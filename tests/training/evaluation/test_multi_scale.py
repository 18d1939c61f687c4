"""One model at several input sizes."""

import numpy as np
import pytest

from posesdk.pipeline import Estimate
from posesdk.skeleton import COCO_17
from posesdk_training.evaluated_model import open_model
from posesdk_training.evaluation.ground_truth import load_ground_truth
from posesdk_training.evaluation.multi_scale import merge_scales, scaled
from posesdk_training.evaluation.predict import predict

POSE = np.random.default_rng(0).uniform(0, 100, (17, 2)).astype(np.float32)


def estimate(poses, scores):
    return Estimate(
        np.array(poses, np.float32).reshape(-1, 17, 2),
        np.full((len(scores), 17), 0.5, np.float32),
        np.array(scores, np.float32),
        {"trunk": 1.0},
    )


def merged(*found):
    return merge_scales(found, COCO_17.sigma_array)


def test_person_of_two_sizes_stays_once_with_the_better_score():
    found = merged(estimate([POSE, POSE + 300], [0.4, 0.9]), estimate([POSE + 1], [0.6]))
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    assert found.keypoints[1] == pytest.approx(POSE + 1)
    assert found.timing == {"trunk": 2.0}


def test_persons_of_one_size_stay_beside_each_other():
    found = merged(estimate([POSE, POSE + 1], [0.8, 0.7]), estimate([], []))
    assert len(found.scores) == 2


def test_nobody_at_any_size_is_nobody():
    found = merged(estimate([], []), estimate([], []))
    assert found.keypoints.shape == (0, 17, 2)


def test_several_sizes_find_what_one_finds_and_more(checkpoint, truth_file, photos):
    images = load_ground_truth(truth_file).image_list(photos)
    with open_model(checkpoint, device="cpu") as model:
        alone = predict(model, images, min_score=0.0).results
    with open_model(checkpoint, device="cpu", scales=(1.0, 2.0)) as model:
        both = predict(model, images, min_score=0.0).results
        assert model.scales == (1.0, 2.0)
        with pytest.raises(ValueError, match="one scale"):
            predict(model, images, initial=True)
    best = {number: max(r["score"] for r in alone if r["image_id"] == number) for number, _ in images}
    assert all(max(r["score"] for r in both if r["image_id"] == number) >= score for number, score in best.items())
    assert both != alone


def test_input_grows_by_the_scale_in_multiples(checkpoint):
    """The model's own side is 64 px, in multiples of 32."""
    with open_model(checkpoint, device="cpu") as model:
        sides = [scaled(model.pipeline, scale).spec.input.side for scale in (0.1, 0.5, 1.0, 1.4, 2.0)]
    assert sides == [32, 32, 64, 96, 128]


def test_input_of_fixed_size_has_one_scale(checkpoint):
    with open_model(checkpoint, device="cpu") as model:
        spec = model.spec
        fixed = spec.model_copy(update={"input": spec.input.model_copy(update={"resize": "fixed", "size": (64, 64)})})
        pipeline = type(model.pipeline)(fixed, model.pipeline.trunk, model.pipeline.adapt)
        assert scaled(pipeline, 1.0) is pipeline
        with pytest.raises(ValueError, match="fixed input size"):
            scaled(pipeline, 2.0)
