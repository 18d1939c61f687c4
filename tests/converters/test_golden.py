from dataclasses import replace

import cv2
import numpy as np
import pytest

from posesdk.bundle import open_bundle
from posesdk.pipeline import open_pipeline
from posesdk.variants import select_variant
from posesdk_converters.golden import expected_poses, golden_image
from posesdk_runtimes.errors import SourceError
from posesdk_training.checkpoint import load_checkpoint
from posesdk_training.models.build import build_model


def model_with_threshold(path, threshold):
    checkpoint = load_checkpoint(path)
    decode = checkpoint.spec.decode.model_copy(update={"score_threshold": threshold})
    model = build_model(checkpoint.spec.model_copy(update={"decode": decode}))
    model.load_state_dict(checkpoint.state_dict)
    return model.eval()


def test_only_poses_above_the_threshold_are_expected(tiny_checkpoint, tiny_picture):
    image = golden_image(tiny_picture)
    everyone = expected_poses(model_with_threshold(tiny_checkpoint, 0.0), image)
    between = float(np.sort(everyone.scores)[-2:].mean())
    assert len(everyone) > 1
    best = expected_poses(model_with_threshold(tiny_checkpoint, between), image)
    np.testing.assert_array_equal(best.scores, everyone.scores[:1])


def test_a_picture_without_poses_above_the_threshold_still_expects_some(tiny_checkpoint, tiny_picture):
    image = golden_image(tiny_picture)
    everyone = expected_poses(model_with_threshold(tiny_checkpoint, 0.0), image)
    assert everyone.scores.max() < 1
    below = expected_poses(model_with_threshold(tiny_checkpoint, 1.0), image)
    np.testing.assert_array_equal(below.keypoints, everyone.keypoints)


def test_poses_at_a_fixed_size_are_those_of_a_graph_of_that_size(tiny_checkpoint, tiny_picture, converted_bundle):
    image = golden_image(tiny_picture)
    bundle = open_bundle(converted_bundle)
    portable = next(one for one in select_variant(bundle.manifest) if one.variant.trunk.startswith("portable/"))
    fixed = replace(portable, variant=portable.variant.model_copy(update={"input_size": (64, 64)}))
    pipeline = open_pipeline(bundle, fixed)
    found = pipeline.run(image)
    pipeline.close()
    expected = expected_poses(model_with_threshold(tiny_checkpoint, 0.0), image, (64, 64))
    np.testing.assert_allclose(expected.scores, np.sort(found.scores)[::-1], atol=1e-4)
    own = expected_poses(model_with_threshold(tiny_checkpoint, 0.0), image)
    assert abs(own.scores[0] - expected.scores[0]) > 1e-3


def test_picture_that_is_none_is_refused(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()[:20])
    with pytest.raises(SourceError, match=r"cannot read image .*broken\.png"):
        golden_image(path)
