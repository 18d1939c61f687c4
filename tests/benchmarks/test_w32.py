"""What the benchmarks of W32 stand on: the same maps of so many people on both sides, turns, and their tables."""

from dataclasses import replace

import numpy as np
import pytest

from posesdk.spec import AdaptationSpec, DecodeSpec, HeadSpec, HRNetSpec, InputSpec, ModelSpec

torch = pytest.importorskip("torch", reason="the published arithmetic is compared in torch")

from posesdk_training.torch_runtime import torch_pipeline  # noqa: E402
from published.estimator import PublishedEstimator  # noqa: E402
from w32.maps import FixedNetwork, FixedTrunk, planted_maps  # noqa: E402
from w32.tables import AFTER, ratio_table, share_table  # noqa: E402
from w32.turns import Laps, take_turns  # noqa: E402
from w32.weights import random_model, random_pictures  # noqa: E402

NEAR = 1e-3
"""px"""


@pytest.fixture(scope="module")
def model():
    spec = ModelSpec(
        name="tiny",
        frame="published",
        input=InputSpec(side=256),
        backbone=HRNetSpec(channels=(4, 8, 16, 32), modules=(1, 1, 1), blocks=(1, 1, 1)),
        heads=HeadSpec(heatmap_channels=8, offset_channels=16, embedding=4),
        decode=DecodeSpec(flip_test=False),
        adaptation=AdaptationSpec(local_size=7, global_size=33, message_channels=(16, 12, 8), affine_pairs=5),
    )
    return random_model(spec)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("people", [1, 4])
def test_the_same_people_are_found_on_both_sides(model, people, flip):
    image = random_pictures(1, (256, 256))[0][0]
    pipeline = torch_pipeline(model)
    maps = planted_maps(pipeline, image, people)
    ours = replace(pipeline, trunk=FixedTrunk(pipeline.trunk, maps)).run(image)
    published = PublishedEstimator(model, flip=flip, network=FixedNetwork(model, maps)).run(image)
    assert len(published.scores) == len(ours.scores) == people
    np.testing.assert_allclose(published.keypoints, ours.keypoints, rtol=0, atol=NEAR)
    np.testing.assert_allclose(published.scores, ours.scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("flip", [False, True])
def test_the_network_runs_in_full_before_its_maps_are_replaced(model, flip):
    image = random_pictures(1, (256, 256))[0][0]
    network = FixedNetwork(model, planted_maps(torch_pipeline(model), image, 1))
    batches = []
    hook = model.transition_embedding.register_forward_hook(lambda module, inputs, output: batches.append(len(output)))
    PublishedEstimator(model, flip=flip, network=network).run(image)
    hook.remove()
    assert batches == [1 + flip]


def test_weights_without_training_give_attraction_maps_that_answer(model):
    contexts = torch.rand(2, 17 * 4, 7, 7)
    with torch.no_grad():
        assert (model.joints_mlp(contexts).amax((2, 3)) > 0).all()


def test_turns_go_round_and_the_first_does_not_count():
    called = []

    def contender(name):
        def run():
            called.append(name)
            return {"trunk": float(len(called)), "adapt": 1.0}

        return run

    laps = take_turns({"a": contender("a"), "b": contender("b")}, 2, lambda text: None)
    assert called == ["a", "b"] * 3
    assert laps["a"].turns == ({"trunk": 3.0, "adapt": 1.0}, {"trunk": 5.0, "adapt": 1.0})
    assert laps["b"].least == 5.0
    assert laps["b"].median == 6.0


def test_tables_divide_least_times():
    fast, slow = (
        Laps(tuple({"trunk": trunk + late, **dict.fromkeys(AFTER, 1.0)} for late in (0.0, 7.0)))
        for trunk in (20.0, 45.0)
    )
    laps = {"fast": fast, "slow": slow}
    assert ratio_table(laps, [("slow", "fast", 1.5)]).rows == (("fast against slow", "2.00", "1.5"),)
    assert share_table(laps, "fast", [("slow", 30)]).rows == (("slow", "25.0", "30", *["5.0"] * 5),)
