"""Training with branches, with two centers and in two stages, and what comes of it."""

import csv
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from posesdk.spec import ModelSpec, PoseNetsSpec
from posesdk_runtimes.errors import CheckpointError, DataError
from posesdk_training.checkpoint import load_checkpoint
from posesdk_training.config import TrainConfig
from posesdk_training.data.batches import Batch
from posesdk_training.losses.dense import dense_losses
from posesdk_training.models.build import build_model
from posesdk_training.models.stems import is_training_stem
from posesdk_training.run import objective
from posesdk_training.run.objective import Objective, loss_names, passes
from posesdk_training.run.resting import is_dense
from posesdk_training.run.state import Run
from posesdk_training.run.train_step import Stepper
from posesdk_training.settings.learning import PhaseConfig
from posesdk_training.train import fit, loaded_batches

TinySet = tuple[Path, Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::DeprecationWarning")

NETS = PoseNetsSpec(encoder=6, hidden=(8, 7), refinement_hidden=(9, 6), refinement_head=5, embedding=4)
BRANCHES = ("8x", "4x", "2x")
EVERYONE = [{"name": name, "area_range": (0, None), "weight": 1 if name == "4x" else 0.5} for name in BRANCHES]
DEPLOYED_STEM = [branch | {"stem": "4x"} for branch in EVERYONE]
DENSE = {"mixture": {"tiny": 1.0}, "sizes": {64: 1.0}, "adaptation": False}
POSE_NETS = {"mixture": {"tiny": 1.0}, "sizes": {64: 1.0}, "dense": False}
STAGES = ({"until": 0.5, **DENSE}, {**POSE_NETS, "learning_rate": 0.01})


@pytest.fixture
def configured(tiny_run: ModuleType, tiny_set: TinySet):
    """A tiny run of Dual Anatomical Centers."""
    model = tiny_run.TINY_SPEC.model_copy(update={"method": "dac", "centers": "dual", "pose_nets": NETS})

    def config(spec: ModelSpec = model, **changes: object) -> TrainConfig:
        tree = {"model": spec.model_dump(), "branches": EVERYONE, **changes}
        return tiny_run.tiny_config(*tiny_set, **tree)

    config.spec = model  # type: ignore[attr-defined]
    return config


def started(config: TrainConfig, folder: Path) -> Run:
    fabric = Fabric(accelerator="cpu")
    fabric.seed_everything(config.seed, verbose=False)
    run = Run(config, folder, fabric)
    run.module.train()
    return run


def of_step(run: Run) -> list[Batch]:
    batches = loaded_batches(run)
    return [next(batches) for _ in range(run.config.accumulate)]


def state(run: Run) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in run.network.state_dict().items()}


def log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def test_step_goes_through_the_network_once_a_branch_and_4x_comes_last(configured, tmp_path: Path) -> None:
    config = configured(accumulate=2)
    batches = of_step(started(config, tmp_path))
    found = list(passes(batches, config.phases[0], torch.device("cpu")))
    assert [(one.part, one.branch) for one in found] == [
        (part, branch) for part in (0, 1) for branch in ("8x", "2x", "4x")
    ]
    assert [one.last for one in found] == [False] * 5 + [True]
    resting = PhaseConfig.model_validate(POSE_NETS)
    assert [one.branch for one in passes(batches, resting, torch.device("cpu"))] == ["4x", "4x"]


def test_step_takes_the_gradient_of_the_weighted_losses_of_all_branches(configured, tmp_path: Path) -> None:
    """One backward pass through all of them, against one for each."""
    config = configured(phases=[DENSE], optimizer={"kind": "adam", "learning_rate": 1e-3, "clip_norm": None})
    run = started(config, tmp_path)
    batches = of_step(run)
    net = build_model(config.model, BRANCHES).train()
    net.load_state_dict(run.network.state_dict())
    figures = Stepper(run).take(batches)
    mean, std = (255 * torch.tensor(v).view(1, 3, 1, 1) for v in (config.model.input.mean, config.model.input.std))
    total = torch.zeros(())
    for seen, branch in ((batches[0], "4x"), *((view, view.branch) for view in batches[0].views)):
        weight = 1.0 if branch == "4x" else 0.5
        maps = net((seen.images.float() - mean) / std, branch)
        losses = dense_losses(maps, seen, config.loss, centers=2)
        names = [name if branch == "4x" else f"{name}_{branch}" for name in losses]
        for name, value in zip(names, losses.values(), strict=True):
            assert figures[name] == pytest.approx(weight * float(value.detach()), rel=1e-4)
            total = total + weight * value
    total.backward()
    expected = {name: value.grad for name, value in net.named_parameters() if value.grad is not None}
    found = {name: value.grad for name, value in run.network.named_parameters() if value.grad is not None}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4 * float(value.abs().max()) + 1e-8)


@pytest.mark.parametrize("cells", ["common", "own"])
def test_inputs_of_the_deployed_stem_are_compared_on_the_targets_cells(configured, tmp_path: Path, cells: str) -> None:
    """Against the one network on every input, and its maps brought to other cells by hand.

    Half of a side of 96 is filled up, for the network takes multiples of 32.
    """
    branches = [branch | {"cells": cells} for branch in DEPLOYED_STEM]
    run = started(configured(phases=[{**DENSE, "sizes": {96: 1.0}}], branches=branches), tmp_path)
    net = build_model(run.config.model).train()
    net.load_state_dict(run.network.state_dict())  # it has no other stems
    mean, std = (255 * torch.tensor(v).view(1, 3, 1, 1) for v in (net.spec.input.mean, net.spec.input.std))
    (batch,) = of_step(run)
    for view, own in zip(batch.views, (48, 12), strict=True):
        maps = net((view.images.float() - mean) / std)
        logits, offsets = (value[..., :own, :own] for value in (maps.heatmap_logits, maps.offsets))
        if cells == "common" and view.branch == "8x":
            logits, offsets = (F.avg_pool2d(value, 2) for value in (logits, offsets / 2))
        elif cells == "common":
            logits, offsets = (twice_as_fine(value) for value in (logits, 2 * offsets))
            offsets = offsets + border_steps(offsets)
        maps = replace(maps, heatmap_logits=logits, offsets=offsets)
        expected = dense_losses(maps, view, run.config.loss, centers=2)
        found = run.module(batch, phase=run.config.phases[0], branch=view.branch)
        assert found.keys() == {f"{name}_{view.branch}" for name in expected}
        for name, value in expected.items():
            torch.testing.assert_close(found[f"{name}_{view.branch}"], 0.5 * value, rtol=1e-4, atol=0)


def twice_as_fine(value: Tensor) -> Tensor:
    """Every cell as four, which take a quarter of what lies next to it on their side; borders are repeated."""
    for dim in (2, 3):
        last = value.shape[dim] - 1
        before = torch.cat((value.narrow(dim, 0, 1), value.narrow(dim, 0, last)), dim)
        after = torch.cat((value.narrow(dim, 1, last), value.narrow(dim, last, 1)), dim)
        parts = torch.stack((0.75 * value + 0.25 * before, 0.75 * value + 0.25 * after), dim + 1)
        value = parts.flatten(dim, dim + 1)
    return value


def border_steps(offsets: Tensor) -> Tensor:
    """What repeated offsets lack at the border, where the cell is half a cell further out than the one repeated."""
    steps = torch.zeros_like(offsets)
    for first, dim in ((0, 3), (1, 2)):
        steps[:, first::2].select(dim, 0).sub_(0.5)
        steps[:, first::2].select(dim, -1).add_(0.5)
    return steps


@pytest.mark.parametrize("branches", [EVERYONE, DEPLOYED_STEM], ids=["stems", "deployed stem"])
def test_running_statistics_are_those_of_the_4x_branch_alone(configured, tmp_path: Path, branches) -> None:
    alone, together = (started(configured(branches=some), tmp_path) for some in (["4x"], branches))
    together.network.load_state_dict(alone.network.state_dict(), strict=False)
    batches = of_step(together)
    Stepper(together).take(batches)
    for batch in batches:
        batch.views = ()
    Stepper(alone).take(batches)
    others = dict(together.network.named_buffers())
    for name, value in alone.network.named_buffers():
        torch.testing.assert_close(others[name], value, rtol=0, atol=0)
    if branches is EVERYONE:
        assert int(others["backbone.stems.8x.1.num_batches_tracked"]) == 1
    else:
        assert others.keys() == dict(alone.network.named_buffers()).keys()


def test_pose_networks_learn_on_a_dense_net_that_stays_as_it_is_saved(configured, tmp_path: Path) -> None:
    run = started(configured(phases=STAGES, steps=6, ema_decay=0.9), tmp_path)
    stepper = Stepper(run)
    while run.step < 3:
        stepper.take(of_step(run))
        run.step += 1
    averaged = {key: value.clone() for key, value in run.average.state_dict().items()}
    before = state(run)
    assert any(not torch.equal(before[key], averaged[key]) for key in before if is_dense(key))
    figures = {}
    while run.step < 6:
        figures = stepper.take(of_step(run))
        run.step += 1
    after, now = state(run), run.average.state_dict()
    for key in after:
        if is_dense(key):
            assert torch.equal(after[key], averaged[key]), key
            assert torch.equal(now[key], averaged[key]), key
    assert all(not torch.equal(after[key], before[key]) for key in after if not is_dense(key) and "weight" in key)
    assert figures.keys() == {"learning_rate", "similarity", "confidence", "refinement", "gradient_norm"}
    assert run.network.training  # for a later phase


def test_average_of_pose_networks_starts_with_their_training(configured, tmp_path: Path) -> None:
    """The first average of the second stage is 1/20 of the weights before it, whatever came before."""
    run = started(configured(phases=STAGES, steps=60, ema_decay=0.999), tmp_path)
    stepper = Stepper(run)
    for run.step in (0, 1, 30):
        before = run.average.state_dict()["pose_nets.confidence.layers.0.weight"].clone()
        stepper.take(of_step(run))
    present = run.network.state_dict()["pose_nets.confidence.layers.0.weight"]
    expected = before / 20 + present * 19 / 20
    torch.testing.assert_close(run.average.state_dict()["pose_nets.confidence.layers.0.weight"], expected)


def test_every_sample_of_a_run_has_a_seed_of_its_own(configured, tmp_path: Path, monkeypatch) -> None:
    config = configured(phases=[POSE_NETS], steps=3, accumulate=2, seed=5)
    seen, losses = [], objective.pose_net_losses

    def watched(*arguments, seeds):
        seen.extend(seeds)
        return losses(*arguments, seeds=seeds)

    monkeypatch.setattr(objective, "pose_net_losses", watched)
    fit(config, tmp_path, accelerator="cpu")
    stream = seen[0][1]
    assert seen == [(5, stream, number) for number in range(3 * 2 * config.batch_size)]


def test_step_that_is_left_out_does_not_wake_the_dense_net(configured, tmp_path: Path, monkeypatch) -> None:
    """The first one of the second stage, after which the norms are those from before it."""
    run = started(configured(phases=STAGES, steps=6, on_nonfinite="skip", ema_decay=0.9), tmp_path)
    stepper = Stepper(run)
    while run.step < 3:
        stepper.take(of_step(run))
        run.step += 1
    averaged = {key: value.clone() for key, value in run.average.state_dict().items()}
    losses = objective.pose_net_losses
    monkeypatch.setattr(objective, "pose_net_losses", lambda *_, **__: {"confidence": torch.tensor(math.nan)})
    assert stepper.take(of_step(run)) == {}
    run.step += 1
    monkeypatch.setattr(objective, "pose_net_losses", losses)
    assert stepper.take(of_step(run))
    weights = run.network.state_dict()
    assert all(torch.equal(weights[key], averaged[key]) for key in weights if is_dense(key))


@pytest.mark.parametrize("stopped", [2, 3, 4], ids=["before", "between", "within the second stage"])
def test_run_in_two_stages_that_was_stopped_goes_on_as_one_that_was_not(configured, tmp_path: Path, stopped) -> None:
    config = configured(phases=STAGES, steps=6)
    whole = load_checkpoint(fit(config, tmp_path / "whole", accelerator="cpu")).state_dict
    fit(config, tmp_path / "parts", accelerator="cpu", stop_after=stopped)
    parts = load_checkpoint(fit(config, tmp_path / "parts", accelerator="cpu")).state_dict
    assert all(torch.equal(parts[key], value) for key, value in whole.items())
    for one, other in zip(log(tmp_path / "parts"), log(tmp_path / "whole"), strict=True):
        assert {**one, "samples_per_second": ""} == {**other, "samples_per_second": ""}
    first, last = log(tmp_path / "whole")[0], log(tmp_path / "whole")[-1]
    assert set(first) - {"step", "samples_per_second", "learning_rate", "gradient_norm"} == set(loss_names(config))
    assert all(first[name] and not last[name] for name in ("heatmap", "offset", "heatmap_8x", "offset_2x"))
    assert all(last[name] and not first[name] for name in ("similarity", "confidence", "refinement"))


def test_second_stage_is_the_same_from_another_run(configured, tmp_path: Path) -> None:
    """What it is trained on are the averaged weights: those that `init_from` reads."""
    config = configured(phases=STAGES, steps=4)
    path = fit(config, tmp_path / "one", accelerator="cpu", stop_after=2)
    dense = load_checkpoint(path).state_dict
    alone = configured(phases=[{**POSE_NETS, "learning_rate": 0.01}], steps=2, init_from=path)
    found = load_checkpoint(fit(alone, tmp_path / "two", accelerator="cpu")).state_dict
    assert all(torch.equal(found[key], value) for key, value in dense.items() if is_dense(key))


def test_joint_training_leaves_the_dense_gradients_as_they_are(configured, tmp_path: Path) -> None:
    gradients = []
    for adaptation in (False, True):
        run = started(configured(phases=[{**DENSE, "adaptation": adaptation}]), tmp_path)
        Stepper(run).take(of_step(run))
        gradients.append({name: value.grad for name, value in run.network.named_parameters()})
    without, joint = gradients
    unclipped = [
        math.sqrt(sum(float(value.square().sum()) for key, value in own.items() if value is not None and is_dense(key)))
        for own in gradients
    ]
    for name in without:
        if is_dense(name):  # all are clipped together
            torch.testing.assert_close(joint[name] / unclipped[1], without[name] / unclipped[0], rtol=1e-3, atol=1e-5)
        else:
            assert without[name] is None
            assert joint[name] is not None


def test_resting_net_standardises_by_its_running_statistics(configured) -> None:
    """The pose networks see of an image what they see of it alone: the batch does not matter."""
    config = configured(phases=[POSE_NETS])
    torch.manual_seed(0)
    module = Objective(build_model(config.model), config).train()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    both = module._maps(images, "4x", dense=False)
    one = module._maps(images[:1], "4x", dense=False)
    torch.testing.assert_close(both.offsets[:1], one.offsets, rtol=1e-4, atol=1e-5)
    assert not both.offsets.requires_grad
    trained = module._maps(images, "4x", dense=True)
    assert trained.offsets.requires_grad
    assert not torch.allclose(trained.offsets[:1], both.offsets[:1], rtol=1e-2)


def test_stems_of_other_branches_are_resumed_but_in_no_model(configured, tmp_path: Path) -> None:
    config = configured(steps=2)
    path = fit(config, tmp_path / "run", accelerator="cpu")
    assert not any(map(is_training_stem, load_checkpoint(path).state_dict))
    resumable = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert {key.split(".")[2] for key in resumable["model"] if is_training_stem(key)} == {"8x", "2x"}
    with pytest.raises(CheckpointError, match="branches 2x, 4x, 8x; keep"):
        fit(configured(steps=4, branches=["4x"]), tmp_path / "run", accelerator="cpu")


def test_stems_are_built_for_the_branches_that_have_one(configured, tmp_path: Path) -> None:
    """What may be resumed depends on these stems alone."""
    branches = ["4x", "8x", {"name": "2x", "stem": "4x"}]
    fit(configured(steps=1, branches=branches), tmp_path, accelerator="cpu")
    resumable = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert {key.split(".")[2] for key in resumable["model"] if is_training_stem(key)} == {"8x"}
    fit(configured(steps=2, branches=["4x", "8x"]), tmp_path, accelerator="cpu")
    with pytest.raises(CheckpointError, match="stems of branches 4x, 8x; keep"):
        fit(configured(steps=3), tmp_path, accelerator="cpu")


def test_stems_start_from_the_one_that_is_read(configured, tmp_path: Path) -> None:
    path = fit(configured(branches=["4x"], steps=1), tmp_path / "first", accelerator="cpu")
    run = started(configured(init_from=path), tmp_path / "second")
    weights = run.network.state_dict()
    for branch in ("8x", "2x"):
        assert torch.equal(weights[f"backbone.stems.{branch}.0.weight"], weights["backbone.stem.0.weight"])
    assert torch.equal(weights["backbone.stem.0.weight"], load_checkpoint(path).state_dict["backbone.stem.0.weight"])


def test_deferred_steps_give_the_weights_of_immediate_ones(configured, tmp_path: Path) -> None:
    once, often = (
        load_checkpoint(
            fit(
                configured(phases=STAGES, steps=4, accumulate=2, check_every=every, log_every=2),
                folder,
                accelerator="cpu",
            )
        ).state_dict
        for every, folder in ((1, tmp_path / "1"), (2, tmp_path / "2"))
    )
    assert all(torch.equal(often[key], value) for key, value in once.items())
    for one, other in zip(log(tmp_path / "1"), log(tmp_path / "2"), strict=True):
        for name in one.keys() - {"samples_per_second"}:
            assert bool(one[name]) == bool(other[name])
            assert float(one[name] or 0) == pytest.approx(float(other[name] or 0), rel=1e-5)


def test_logocap_with_two_centers_trains_its_adaptation(configured, tmp_path: Path) -> None:
    spec = configured.spec.model_copy(update={"method": "logocap"})
    path = fit(configured(spec, branches=["4x"], steps=3, batch_size=4), tmp_path, accelerator="cpu")
    row = log(tmp_path)[-1]
    assert all(math.isfinite(float(row[name])) for name in ("heatmap", "offset", "oks", "refined"))
    assert load_checkpoint(path).state_dict["final_layer_reg.weight"].shape[0] == 2 * 2 * 17


def test_logocap_on_a_resting_net_trains_its_message_passing_alone(configured, tmp_path: Path) -> None:
    spec = configured.spec.model_copy(update={"method": "logocap"})
    start = fit(configured(spec, steps=2, phases=[DENSE]), tmp_path / "first", accelerator="cpu")
    changes = {"init_from": start, "phases": [POSE_NETS], "steps": 3, "batch_size": 4, "ema_decay": 0.5}
    before = load_checkpoint(start).state_dict
    with_stems = configured(spec, **changes)
    after = load_checkpoint(fit(with_stems, tmp_path / "second", accelerator="cpu")).state_dict
    changed = {key.split(".")[0] for key, value in before.items() if not torch.equal(after[key], value)}
    assert changed == {"joints_mlp"}


@pytest.mark.parametrize("centers", ["single", "dual"])
def test_dense_losses_of_all_branches_fall(configured, tmp_path: Path, centers: str) -> None:
    spec = configured.spec.model_copy(update={"centers": centers})
    fit(configured(spec, steps=24, phases=[DENSE], batch_size=4), tmp_path, accelerator="cpu")
    rows = log(tmp_path)
    for name in ("heatmap", "heatmap_8x", "heatmap_2x"):
        first, last = (sum(float(row[name]) for row in some) for some in (rows[:3], rows[-3:]))
        assert last < 0.9 * first, name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phases": [{**POSE_NETS, "adaptation": False}]}, "trains nothing"),
        ({"phases": [{**DENSE, "milestones": (0.5,)}]}, "give it a learning_rate"),
        ({"targets": {"background_weight": 0}}, "background_weight 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(configured, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configured(**changes)


def test_models_that_do_not_fit_are_refused(configured) -> None:
    without = NETS.model_copy(update={"similarity": False, "confidence": False, "refinement": False})
    with pytest.raises(ValueError, match=r"model\.pose_nets has none"):
        configured(configured.spec.model_copy(update={"pose_nets": without}), phases=[POSE_NETS])
    with pytest.raises(ValueError, match="method dac is for the consistent one"):
        configured(configured.spec.model_copy(update={"frame": "published"}), branches=["4x"])


def test_resident_data_refuses_weights_by_the_diagonal(configured, tmp_path: Path) -> None:
    config = configured(branches=["4x"], steps=1)
    targets = config.targets.model_copy(update={"offset_weight": "inverse_diagonal"})
    data = config.data.model_copy(update={"resident": True})
    with pytest.raises(DataError, match="inverse_diagonal"):
        fit(config.model_copy(update={"targets": targets, "data": data}), tmp_path, accelerator="cpu")
