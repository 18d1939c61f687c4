"""The report of an evaluation."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from posesdk.skeleton import CROWDPOSE_14
from posesdk_training.checkpoint import load_checkpoint, save_checkpoint
from posesdk_training.evaluated_model import open_model
from posesdk_training.evaluation.accuracy_report import manifest_entry, show_report
from posesdk_training.evaluation.ground_truth import load_ground_truth
from posesdk_training.evaluation.keypoints import evaluate_keypoints, stats_of
from posesdk_training.evaluation.measure import Measurement, measure
from posesdk_training.models.build import build_model


@pytest.fixture(scope="module")
def crowdpose_checkpoint(checkpoint, tmp_path_factory):
    """The tiny model with CrowdPose's fourteen keypoints."""
    spec = load_checkpoint(checkpoint).spec.model_copy(update={"skeleton": CROWDPOSE_14})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = build_model(spec)
    model.final_layer_cls.bias.data.zero_()
    model.joints_mlp[-1].bias.data.fill_(0.5)
    path = tmp_path_factory.mktemp("model") / "crowdpose.safetensors"
    save_checkpoint(path, model.state_dict(), spec)
    return path


def test_model_of_another_skeleton_is_measured_whole(crowdpose_checkpoint, photos, people, tmp_path):
    rng = np.random.default_rng(0)
    images = [{"id": n, "file_name": f"{n}.png", "crowdIndex": (n - 1) / 3} for n in range(1, 5)]
    persons = [people.annotation(n, n, rng, count=14, labelled=14) for n in range(1, 5)]
    path = people.write_truth(tmp_path / "crowd.json", persons, images)
    what = Measurement(oracle_window=3, no_people=photos)
    with open_model(crowdpose_checkpoint, device="cpu") as model:
        report, results = measure(model, path, photos, what)
        with pytest.raises(ValueError, match="one scale"):
            measure(replace(model, scales=(1.0, 2.0)), path, photos, what)
    assert report == json.loads(json.dumps(report))
    assert report["protocol"] == "crowdpose"
    assert tuple(report["stats"]) == stats_of("crowdpose")
    assert report["conditions"]["skeleton"] == "crowdpose-14"
    assert len(report["keypoints"]["rows"]) == 15
    assert report["data"]["results"] == len(results) > 0
    truth = load_ground_truth(path, CROWDPOSE_14)
    assert report["stats"] == pytest.approx(evaluate_keypoints(truth, results).stats, abs=1e-6)


def test_switching_the_adaptation_off_gives_the_initial_figures_of_the_bound(checkpoint, truth_file, photos):
    with open_model(checkpoint, device="cpu") as model:
        report, _ = measure(model, truth_file, photos, Measurement(oracle_window=3, min_score=0.0))
    with open_model(checkpoint, device="cpu", adaptation="none") as model:
        without, results = measure(model, truth_file, photos, Measurement(min_score=0.0))
    labelled = load_ground_truth(truth_file, image_ids=[1, 2, 3])
    assert report["upper_bound"]["images"] == 3
    assert report["upper_bound"]["initial"] == pytest.approx(evaluate_keypoints(labelled, results).stats, abs=1e-6)
    assert without["conditions"]["adaptation"] == "none"


@pytest.mark.parametrize(("min_score", "thresholds"), [(0.01, [0.02, 0.01]), (0.02, [0.02]), (0.5, [0.5])])
def test_recall_is_not_given_for_scores_below_the_results(checkpoint, truth_file, photos, min_score, thresholds):
    """The model's own threshold is 0.02."""
    with open_model(checkpoint, device="cpu") as model:
        report, _ = measure(model, truth_file, photos, Measurement(min_score=min_score, limit=1))
    assert [row["score_threshold"] for row in report["recall"] if row["group"] == "large"] == thresholds


def test_recall_of_large_persons_is_shown(checkpoint, truth_file, photos, capsys):
    with open_model(checkpoint, device="cpu") as model:
        report, _ = measure(model, truth_file, photos)
    show_report(report)
    shown = capsys.readouterr().out
    assert "persons larger than 96 x 96 px: 0 of 4 found at OKS 0.5 and score 0.02 or more, recall 0.000" in shown
    assert "of these, with three quarters of their keypoints labelled: 0 of 2 found" in shown
    assert manifest_entry(report)["metrics"]["recall_larger_than_96_px"] == 0.0
