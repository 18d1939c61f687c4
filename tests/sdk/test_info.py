"""`posesdk info` says what a model is."""

import pytest

from posesdk.bundle import open_bundle
from posesdk.info import describe
from posesdk.spec import PoseNetsSpec

DAC = {"method": "dac", "centers": "dual"}
SOME_NETS = PoseNetsSpec(similarity=False)
NO_NETS = PoseNetsSpec(similarity=False, confidence=False, refinement=False)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "logocap, one center, hrnet backbone, adaptation full"),
        ({"centers": "dual"}, "logocap, head and body center, hrnet backbone, adaptation full"),
        (DAC, "dac, head and body center, hrnet backbone, pose networks: similarity, confidence, refinement"),
        (
            DAC | {"pose_nets": SOME_NETS},
            "dac, head and body center, hrnet backbone, pose networks: confidence, refinement",
        ),
        ({"method": "dac", "pose_nets": NO_NETS}, "dac, one center, hrnet backbone, pose networks: none"),
    ],
)
def test_line_of_the_model_says_its_method_centers_and_what_refines_its_poses(
    tiny_bundle, make_bundle, tmp_path, fields, line
):
    model = open_bundle(tiny_bundle).spec.model_copy(update=fields)
    bundle = open_bundle(make_bundle(tmp_path / "bundle", model=model))
    assert f"  model      {line}" in list(describe(bundle))
