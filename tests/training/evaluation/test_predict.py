"""Results of a model, from the pass that its initial poses come from too."""

import numpy as np
import pytest

from posesdk_runtimes.errors import CheckpointError, DataError, SourceError
from posesdk_training.evaluated_model import open_model
from posesdk_training.evaluation.false_positives import find_false_positives, list_pictures
from posesdk_training.evaluation.ground_truth import load_ground_truth
from posesdk_training.evaluation.keypoints import evaluate_keypoints
from posesdk_training.evaluation.predict import predict


@pytest.fixture
def truth(truth_file):
    return load_ground_truth(truth_file)


def test_checkpoint_is_measured_end_to_end(checkpoint, truth, photos):
    images = truth.image_list(photos)
    done = []
    with open_model(checkpoint, device="cpu") as model:
        results = predict(model, images, on_image=done.append).results
    assert done == [1, 2, 3, 4]
    per_image = {number: [r for r in results if r["image_id"] == number] for number, _ in images}
    assert all(0 < len(found) <= 30 for found in per_image.values())
    assert min(result["score"] for result in results) >= 0.01
    assert not any("bbox" in result for result in results)
    assert evaluate_keypoints(truth, results).images == 4


@pytest.mark.parametrize("level", ["full", "partial"])
def test_initial_poses_are_those_without_adaptation(checkpoint, truth, photos, level):
    images = truth.image_list(photos)
    with open_model(checkpoint, device="cpu", adaptation=level) as model:
        found = predict(model, images, initial=True)
    with open_model(checkpoint, device="cpu", adaptation="none") as model:
        expected = predict(model, images).results
    assert found.initial == expected
    assert found.results != expected
    # Pictures are 70 px wide, the long side of the input 64.
    assert found.net_scales == pytest.approx({number: 64 / 70 for number, _ in images})


def test_trunk_runs_once_an_image(checkpoint, truth, photos, monkeypatch):
    images = truth.image_list(photos)
    with open_model(checkpoint, device="cpu", flip_test=True) as model:
        runs = []
        run = model.pipeline.trunk._runtime.run
        monkeypatch.setattr(model.pipeline.trunk._runtime, "run", lambda feeds: runs.append(feeds) or run(feeds))
        predict(model, images, initial=True)
    assert len(runs) == len(images)


@pytest.mark.parametrize("changes", [{"adaptation": "none"}, {"adaptation": "partial"}, {"flip_test": True}])
def test_settings_can_be_changed_for_a_checkpoint(checkpoint, truth, photos, changes):
    images = truth.image_list(photos)[:1]
    with open_model(checkpoint, device="cpu") as model:
        before = predict(model, images).results
    with open_model(checkpoint, device="cpu", **changes) as model:
        assert predict(model, images).results != before
        assert model.spec.adaptation.level == changes.get("adaptation", "full")
        assert model.spec.decode.flip_test == changes.get("flip_test", False)


def test_false_positives_are_persons_above_the_threshold(checkpoint, photos):
    with open_model(checkpoint, device="cpu") as model:
        found = find_false_positives(model, list_pictures(photos))
        expected = sum(len(model.detect(image)) for image in pixels(photos))
    assert found.images == 4
    assert found.count(0.0) == expected > 0
    assert found.per_image(0.0) == expected / 4
    assert found.count(1.0) == 0
    assert found.count(float(np.sort(found.scores)[-2])) == 2


def pixels(folder):
    import cv2

    return [cv2.imread(str(path)) for path in sorted(folder.glob("*.png"))]


def test_missing_image_stops_the_evaluation(checkpoint, truth, tmp_path):
    with open_model(checkpoint, device="cpu") as model, pytest.raises(SourceError, match=r"1\.png"):
        predict(model, truth.image_list(tmp_path / "nowhere"))


def test_folder_without_pictures_is_named(tmp_path):
    with pytest.raises(DataError, match="no pictures"):
        list_pictures(tmp_path)


def test_checkpoint_runs_with_torch_only(checkpoint):
    with pytest.raises(ValueError, match="torch"), open_model(checkpoint, runtime="openvino"):
        pass


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="absent"), open_model(tmp_path / "absent.safetensors"):
        pass
