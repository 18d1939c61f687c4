"""The recipes of models with two centers: what they train, for how long, and on what."""

import math
from pathlib import Path

import pytest
from lightning.fabric import Fabric

from posesdk.spec import EdgeBackboneSpec, HRNetSpec, PoseNetsSpec
from posesdk_training.config import TrainConfig, load_config
from posesdk_training.run.objective import loss_names
from posesdk_training.run.state import Run
from posesdk_training.run.train_step import Stepper
from posesdk_training.settings.recipe import find_recipe
from posesdk_training.train import loaded_batches

TinySet = tuple[Path, Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::DeprecationWarning")

NETS = PoseNetsSpec(encoder=6, hidden=(8, 7), refinement_hidden=(9, 6), refinement_head=5, embedding=4)
RECIPES = (
    "dac-w32",
    "dac-w48",
    "dac-w32-crowdpose",
    "dac-nano",
    "dac-small",
    "logocap-nano-dual",
)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_takes_a_step_in_every_phase(name: str, tiny_set: TinySet, tmp_path: Path) -> None:
    """With a network of the recipe's kind at tiny widths, on crops of one cell of the network's multiple."""
    recipe = load_config(find_recipe(name))
    tiny = HRNetSpec(channels=(4, 8, 16, 32), modules=(1, 1, 1), blocks=(1, 1, 1))
    edge = EdgeBackboneSpec(stem=4, channels=(4, 8, 8, 8), blocks=(1, 1, 1, 1), neck=6)
    heads = {"heatmap_channels": 4, "offset_channels": 4, "embedding": 2, "adaptive_channels": 2}
    spec = recipe.model.model_copy(
        update={
            "backbone": tiny if isinstance(recipe.model.backbone, HRNetSpec) else edge,
            "heads": recipe.model.heads.model_copy(update=heads),
            "pose_nets": NETS,
        }
    )
    tree = recipe.model_dump(exclude_unset=True)
    for phase in tree["phases"]:
        phase |= {"mixture": {"tiny": 1.0}, "sizes": {64: 1.0}}
    sets = [{"name": "tiny", "annotations": tiny_set[0], "images": tiny_set[1]}]
    precision = "bf16-mixed" if recipe.precision == "16-mixed" else recipe.precision  # a CPU has no other
    data = {"sets": sets, "workers": 0}
    config = TrainConfig.model_validate(
        tree | {"model": spec.model_dump(), "data": data, "batch_size": 2, "precision": precision}
    )
    fabric = Fabric(accelerator="cpu", precision=config.precision)
    run = Run(config, tmp_path, fabric)
    run.module.train()
    stepper = Stepper(run)
    seen: set[str] = set()
    for start in [0, *(math.ceil(phase.until * config.steps) for phase in config.phases[:-1])]:
        run.step = start
        figures = stepper.take([next(loaded_batches(run))])
        assert all(map(math.isfinite, figures.values()))
        seen |= figures.keys()
    losses = {entry for entry in loss_names(config) if not entry.startswith("distilled")}
    assert seen == {*losses, "learning_rate", "gradient_norm"}
    assert len(losses) == (4 if name == "logocap-nano-dual" else 2 * 3 + 3)


@pytest.mark.parametrize(
    ("recipe", "photos", "epochs", "falls"),
    [
        ("dac-w32", 64115, (140, 20), ((90, 120), (12, 16))),
        ("dac-w48", 64115, (140, 20), ((90, 120), (12, 16))),
        ("dac-w32-crowdpose", 12000, (300, 20), ((200, 260), (12, 16))),
    ],
)
def test_paper_size_recipe_follows_the_schedule_in_epochs(recipe: str, photos: int, epochs, falls) -> None:
    config = load_config(find_recipe(recipe))
    per_epoch = photos / 40  # images of a step, on all devices
    assert config.batch_size * (8 if recipe == "dac-w48" else 4) == 40
    assert config.steps == pytest.approx(sum(epochs) * per_epoch, abs=1)
    begin = 0.0
    for phase, length, own_falls in zip(config.phases, epochs, falls, strict=True):
        assert phase.until * config.steps == pytest.approx((begin + length) * per_epoch, abs=1)
        for fall in own_falls:
            before, after = ((begin + fall + shift) * per_epoch for shift in (-0.1, 0.1))
            rates = []
            for step in (before, after):
                place, length_in_steps, settings = config.schedule_at(int(step))
                rates.append(sum(place >= round(m * length_in_steps) for m in settings.milestones))
            assert rates[1] == rates[0] + 1
        begin += length
    assert config.loss.offset_factor == 0.03
    assert [config.phases[0].dense, config.phases[1].dense] == [True, False]
    assert (config.optimizer.kind, config.optimizer.learning_rate, config.optimizer.weight_decay) == ("adam", 1e-3, 0)


@pytest.mark.parametrize(("recipe", "relative"), [("dac-nano", "logocap-nano"), ("dac-small", "logocap-small")])
def test_edge_recipe_has_the_data_crops_and_budget_of_its_relative(recipe: str, relative: str) -> None:
    ours, theirs = (load_config(find_recipe(name)) for name in (recipe, relative))
    changed = {key for key, value in ours if value != getattr(theirs, key)}
    assert changed == {"name", "model", "branches", "phases"}
    assert ours.model.backbone == theirs.model.backbone
    for phase, other in zip(ours.phases[:2], theirs.phases, strict=True):
        assert (phase.mixture, phase.sizes, phase.learning_rate) == (other.mixture, other.sizes, other.learning_rate)
    assert (ours.phases[2].dense, ours.phases[2].adaptation) == (False, True)


def test_rows_of_the_ladder_are_switches_of_one_recipe() -> None:
    dual = load_config(find_recipe("dac-nano"), ("branches=[4x]",))
    single = load_config(find_recipe("dac-nano"), ("branches=[4x]", "model.centers=single"))
    assert [branch.name for branch in dual.branches] == ["4x"]
    assert (single.model.centers, single.model.center_count) == ("single", 1)
    assert single.model.model_copy(update={"centers": "dual"}) == dual.model
