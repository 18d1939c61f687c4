"""What a run takes of the weights that it starts from."""

import logging
from itertools import combinations
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from pydantic import ValidationError

from posesdk.spec import EdgeBackboneSpec, HeadSpec, ModelSpec, PoseNetsSpec
from posesdk_runtimes.errors import CheckpointError
from posesdk_training.checkpoint import save_checkpoint
from posesdk_training.models.build import PoseModel, build_model
from posesdk_training.run.start import start_from
from posesdk_training.run.state import Run

SPEC = ModelSpec(
    name="tiny",
    method="dac",
    centers="dual",
    backbone=EdgeBackboneSpec(stem=4, channels=(4, 8, 8, 8), blocks=(1, 1, 1, 1), neck=6),
    heads=HeadSpec(heatmap_channels=4, offset_channels=4, embedding=2, activation="sigmoid"),
    pose_nets=PoseNetsSpec(encoder=6, hidden=(8, 7), refinement_hidden=(9, 6), refinement_head=5, embedding=4),
)
PARTS = {
    "backbone": {"backbone"},
    "heads": {"transition_cls", "final_layer_cls", "transition_reg", "final_layer_reg"},
    "adaptation": {"pose_nets"},
}
"""First words of the weights' names."""
CHOICES = [chosen for number in (1, 2, 3) for chosen in combinations(PARTS, number)]


def saved(folder: Path, spec: ModelSpec = SPEC) -> Path:
    """A checkpoint of ones."""
    weights = {key: torch.ones_like(value) for key, value in build_model(spec).state_dict().items()}
    save_checkpoint(folder / "model.safetensors", weights, spec)
    return folder / "model.safetensors"


def empty(spec: ModelSpec = SPEC, branches=()) -> PoseModel:
    """A network of zeros."""
    network = build_model(spec, branches)
    network.load_state_dict({key: torch.zeros_like(value) for key, value in network.state_dict().items()})
    return network


def taken(network: PoseModel) -> set[str]:
    """First words of the names of the weights that are ones; all of a word's weights are, or none."""
    weights = network.state_dict()
    words = {key.split(".")[0] for key, value in weights.items() if bool((value == 1).all())}
    assert all(bool((value == (key.split(".")[0] in words)).all()) for key, value in weights.items())
    return words


@pytest.mark.parametrize("chosen", CHOICES, ids=" ".join)
def test_the_parts_that_are_asked_for_are_taken_and_no_other(tmp_path: Path, chosen: tuple) -> None:
    network = empty()
    start_from(network, saved(tmp_path), chosen)
    assert taken(network) == set.union(*(PARTS[part] for part in chosen))


def test_everything_that_fits_is_taken_where_nothing_is_said(tmp_path: Path, caplog) -> None:
    """Of LOGO-CAP: its backbone and heads. Its embedding and message passing have no place here."""
    caplog.set_level(logging.INFO)
    network = empty()
    start_from(network, saved(tmp_path, SPEC.model_copy(update={"method": "logocap"})))
    assert taken(network) == PARTS["backbone"] | PARTS["heads"]
    counts = {part: sum(key.split(".")[0] in words for key in network.state_dict()) for part, words in PARTS.items()}
    there, missing = counts["backbone"] + counts["heads"], counts["adaptation"]
    (message,) = caplog.messages
    assert f"initialised {there} of {there + missing} tensors" in message
    assert f"backbone {counts['backbone']} of {counts['backbone']}, heads {counts['heads']} of" in message
    assert f"adaptation 0 of {missing}" in message


def test_methods_can_start_from_one_backbone_with_heads_of_their_own(tmp_path: Path) -> None:
    path = saved(tmp_path, SPEC.model_copy(update={"method": "logocap", "centers": "single"}))
    for spec in (SPEC, SPEC.model_copy(update={"method": "logocap", "centers": "single"})):
        network = empty(spec)
        start_from(network, path, ["backbone"])
        assert taken(network) == {"backbone"}


def test_stems_of_other_branches_start_from_the_backbone_that_is_taken(tmp_path: Path) -> None:
    network = empty(branches=("8x", "2x"))
    start_from(network, saved(tmp_path), ["backbone"])
    assert bool((network.state_dict()["backbone.stems.8x.0.weight"] == 1).all())


def test_part_that_does_not_fit_is_refused_and_said_what_does(tmp_path: Path) -> None:
    path = saved(tmp_path, SPEC.model_copy(update={"method": "logocap"}))
    network = empty()
    with pytest.raises(CheckpointError) as fault:
        start_from(network, path, ["backbone", "adaptation"])
    assert f"cannot initialise adaptation from {path}" in str(fault.value)
    heads = sum(key.split(".")[0] in PARTS["heads"] for key in network.state_dict())
    assert f"heads {heads} of {heads}, adaptation 0 of " in str(fault.value)
    assert taken(network) == set()


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
def test_run_takes_the_parts_of_its_configuration(tiny_run, tiny_set, tmp_path: Path) -> None:
    path = saved(tmp_path, tiny_run.TINY_SPEC)
    config = tiny_run.tiny_config(*tiny_set, init_from=path, init_parts=["heads"])
    weights = Run(config, tmp_path / "run", Fabric(accelerator="cpu")).network.state_dict()
    assert bool((weights["final_layer_cls.weight"] == 1).all())
    assert not bool((weights["backbone.stem.0.weight"] == 1).any())
    assert not any(bool((value == 1).any()) for key, value in weights.items() if key == "joints_mlp.0.weight")


@pytest.mark.parametrize("parts", [[], ["neck"]])
def test_parts_that_no_model_has_are_refused(tiny_run, tiny_set, parts) -> None:
    with pytest.raises(ValidationError, match="init_parts"):
        tiny_run.tiny_config(*tiny_set, init_parts=parts)
