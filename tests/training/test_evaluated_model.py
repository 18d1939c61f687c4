"""The rows of Table 6 of DAC's paper, each as an evaluation of one checkpoint."""

import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from posesdk import BundleError
from posesdk.dual_centers import LEVELS, level_channels
from posesdk.pipeline import Pipeline
from posesdk.spec import PoseNetsSpec
from posesdk_training.evaluated_model import open_model
from posesdk_training.evaluation.predict import read_stored
from posesdk_training.program import app

LADDER = ("none", "confidence", "similarity", "all")
"""Table 6 from two centers on, the networks coming in one by one."""


def _distances(one, other):
    return [math.dist(a, b) for a, b in zip(one, other, strict=True)]


def _area(pose):
    return max(16.0, float(np.prod(np.ptp(pose, axis=0))))


def _by_distance(poses, looks, i, j):
    return np.mean(_distances(poses[i], poses[j])) < 0.1 * math.sqrt((_area(poses[i]) + _area(poses[j])) / 2)


def _by_similarity(poses, looks, i, j):
    spread = 0.134**2 * (_area(poses[i]) + _area(poses[j])) / 2
    near = np.mean([math.exp(-(d**2) / (2 * spread)) for d in _distances(poses[i], poses[j])])
    return max(0.0, float(looks[i] @ looks[j])) * near > 0.3


def _row(last, initial, outputs):
    """Poses in net px and scores of a row, best first, from the candidates of both centers and what is said of them."""
    poses = initial.keypoints.astype(np.float64)
    rank = initial.scores if last == "none" else outputs["confidence"]
    alike = _by_distance if last in ("none", "confidence") else _by_similarity
    left, found = sorted(range(len(poses)), key=lambda i: -rank[i]), []
    while left:
        best = left[0]
        group = [i for i in left if i == best or alike(poses, outputs["similarity"], best, i)]
        left = [i for i in left if i not in group]
        score = np.mean(initial.scores[group]) if last == "none" else rank[best]
        moved = 0.1 * math.sqrt(_area(poses[best])) * outputs["residuals"][best] if last == "all" else 0
        found.append((float(score), poses[best] + moved))
    found.sort(key=lambda person: -person[0])
    return np.array([pose for _, pose in found]), np.array([score for score, _ in found])


@pytest.mark.parametrize("last", LADDER)
def test_row_of_the_ladder_groups_scores_and_refines_by_its_networks_alone(last, tiny_dac_checkpoint, tiny_picture):
    image = read_stored(tiny_picture)
    with open_model(tiny_dac_checkpoint, device="cpu") as model:
        letterbox, initial, outputs = model.pipeline.candidates(image)
    with open_model(tiny_dac_checkpoint, device="cpu", pose_nets=last) as model:
        found = model.detect(image)
    poses, scores = _row(last, initial, outputs)
    assert 10 < len(scores) < len(initial) - 5
    shown = slice(0, model.spec.decode.max_people)
    np.testing.assert_allclose(found.scores, scores[shown], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.keypoints, letterbox.to_image(poses[shown].astype(np.float32)), rtol=0, atol=1e-3)


def test_model_is_measured_with_all_networks_and_its_initial_poses_without_any(tiny_dac_checkpoint, tiny_picture):
    image = read_stored(tiny_picture)
    found = {}
    for last in ("none", "all", None):
        with open_model(tiny_dac_checkpoint, device="cpu", pose_nets=last) as model:
            found[last], initial = model.detect(image), model.detect_initial(image)
        np.testing.assert_array_equal(initial.keypoints, found["none"].keypoints)
    np.testing.assert_array_equal(found[None].keypoints, found["all"].keypoints)
    assert not np.array_equal(found[None].keypoints[:1], found["none"].keypoints[:1])


class _WithLevels:
    """A trunk of LOGO-CAP as one of DAC: with levels of features, which are not looked at without networks."""

    def __init__(self, trunk, spec):
        self.trunk, self.inputs = trunk, trunk.inputs
        self.widths = dict(zip(LEVELS, level_channels(spec), strict=True))

    def run(self, feeds):
        outputs = self.trunk.run(feeds)
        images = len(outputs["heatmaps"])
        return outputs | {name: np.zeros((images, 1, 1, width), np.float32) for name, width in self.widths.items()}


@pytest.mark.parametrize("flip", [False, True])
def test_one_center_without_networks_finds_what_logocap_does_before_its_adaptation(tiny_checkpoint, tiny_picture, flip):
    image = read_stored(tiny_picture)
    off = PoseNetsSpec(similarity=False, confidence=False, refinement=False)
    with open_model(tiny_checkpoint, device="cpu", adaptation="none", flip_test=flip) as model:
        spec = model.spec.model_copy(update={"method": "dac", "pose_nets": off})
        decode = spec.decode.model_copy(update={"nms_distance": 15.0})  # the poses of the tiny model are small
        theirs = model.pipeline.adjusted(decode).run(image)
        ours = Pipeline(spec, _WithLevels(model.pipeline.trunk, spec), None).adjusted(decode).run(image)
        candidates = len(model.pipeline.candidates(image)[1])
    assert 3 < len(theirs.scores) < candidates
    np.testing.assert_array_equal(ours.keypoints, theirs.keypoints)
    np.testing.assert_array_equal(ours.keypoint_scores, theirs.keypoint_scores)
    np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_adaptation_of_a_model_without_one_cannot_be_switched(tiny_dac_checkpoint):
    with (
        pytest.raises(ValueError, match="no adaptation: it is a model of dac"),
        open_model(tiny_dac_checkpoint, device="cpu", adaptation="none"),
    ):
        pass


def test_a_shipped_model_is_measured_by_its_name():
    with open_model(Path("dac-nano"), runtime="onnxruntime", device="cpu") as model:
        assert (model.name, model.pipeline.spec.method) == ("dac-nano", "dac")


def test_what_is_neither_a_file_nor_a_shipped_model_is_refused_with_those_that_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"cannot open bundle dac-nan: .* it has dac-nano, "), open_model("dac-nan"):
        pass


def test_networks_of_a_model_without_them_cannot_be_switched(tiny_checkpoint):
    with (
        pytest.raises(ValueError, match="has no pose networks: it is a model of logocap"),
        open_model(tiny_checkpoint, device="cpu", pose_nets="all"),
    ):
        pass


def test_reports_say_which_networks_were_used(tiny_dac_checkpoint, tiny_set, tmp_path):
    places = ("--annotations", str(tiny_set[0]), "--images", str(tiny_set[1]), "--device", "cpu", "--limit", "1")
    report, accuracy = tmp_path / "report.json", tmp_path / "accuracy.json"
    files = ("--json", str(report), "--accuracy", str(accuracy))
    done = CliRunner().invoke(app, ["evaluate", str(tiny_dac_checkpoint), *places, "--pose-nets", "similarity", *files])
    assert done.exit_code == 0, done.output
    assert '"refinement": false' in report.read_text()
    assert "pose networks confidence + similarity," in accuracy.read_text()
