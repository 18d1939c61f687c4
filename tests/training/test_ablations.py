"""Every switch of the ablations (LOGO-CAP, Tables 5 to 7), as a user sets it: one training step, and decoded poses.

The training step is compared with what the switch says about the gradients, the decode with the torch model's.
"""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml

from posesdk.adapt import uses_attraction
from posesdk_training.checkpoint import load_model
from posesdk_training.config import TrainConfig, load_config
from posesdk_training.data.batches import StepSampler, collate
from posesdk_training.data.dataset import KeypointDataset
from posesdk_training.losses.adaptation import adaptation_losses
from posesdk_training.models.build import build_model
from posesdk_training.torch_runtime import torch_pipeline
from posesdk_training.train import fit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::DeprecationWarning")

SWITCHES = {
    "full": ("model.adaptation.level=full",),
    "partial": ("model.adaptation.level=partial",),
    "none": ("model.adaptation.level=none",),
    "window 7": ("model.adaptation.local_size=7",),
    "window 15": ("model.adaptation.local_size=15",),
    "global window": ("model.adaptation.global_size=9", "model.adaptation.reweigh_sigma=1.333"),
    "without reweighing": ("model.adaptation.reweigh_sigma=null",),
    "one convolution": ("model.adaptation.message_channels=[]",),
    "batch norm": ("model.adaptation.norm=batch",),
    "kem alone": ("model.adaptation.prior=kem",),
    "kam alone": ("model.adaptation.prior=kam",),
    "without oks loss": ("loss.oks_factor=0",),
    "without refined loss": ("loss.refined_factor=0",),
    "paper": ("model.convention=paper",),
    "published frame": ("model.frame=published",),
}


@pytest.fixture
def configured(tiny_run: ModuleType, tiny_set: tuple[Path, Path], tmp_path: Path):
    tree = tiny_run.tiny_config(*tiny_set, steps=1).model_dump(mode="json", exclude_unset=True)

    def load(*overrides: str) -> TrainConfig:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(tree))
        return load_config(path, overrides)

    return load


@pytest.mark.parametrize("switch", SWITCHES)
def test_ablation_trains_and_decodes(configured, tmp_path: Path, switch: str) -> None:
    config = configured(*SWITCHES[switch])
    model = load_model(fit(config, tmp_path / "run", accelerator="cpu"))
    assert model.spec == config.model
    with torch.no_grad():  # as after a long training: a center that is found, attraction that answers
        model.final_layer_cls.bias.fill_(0.5)
        model.joints_mlp[-1].bias.fill_(0.5)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    spec = model.spec.model_copy(update={"decode": model.spec.decode.model_copy(update={"nms_distance": 0.0})})
    pipeline = torch_pipeline(model, spec)
    found = pipeline.run(image)
    assert len(found.scores) > 0
    assert np.isfinite(found.keypoints).all()
    assert (pipeline.adapt is not None) == uses_attraction(config.model)
    mean, std = (255 * torch.tensor(value).view(1, 3, 1, 1) for value in (spec.input.mean, spec.input.std))
    pixels = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    wanted = model.detect((pixels - mean) / std)
    kept = wanted.scores > 0
    best = int(wanted.scores.argmax())
    assert len(found.scores) == int(kept.sum())
    np.testing.assert_allclose(found.scores.max(), float(wanted.scores[best]), rtol=1e-4)


@pytest.mark.parametrize(
    ("switch", "changes", "stays"),
    [
        ("full", ("joints_mlp", "transition_embedding"), ()),
        ("without oks loss", ("joints_mlp",), ()),
        ("without refined loss", ("joints_mlp",), ("final_layer_cls",)),
        ("kem alone", ("joints_mlp", "final_layer_cls"), ()),
    ],
)
def test_adaptation_losses_reach_what_their_switch_leaves(configured, switch, changes, stays) -> None:
    """The maps are the targets, but every pose is a net px off: the window can gain, so the losses have weight."""
    config = configured(*SWITCHES[switch], "batch_size=4")
    torch.manual_seed(0)
    model = build_model(config.model)
    dataset = KeypointDataset(config)
    batch = collate([dataset[key] for key in next(iter(StepSampler(config)))])
    maps = model((batch.images.float() - 127) / 64)
    trained = type(maps)(
        heatmap_logits=maps.heatmap_logits + 20 * batch.heatmaps.float() - 10,
        offsets=maps.offsets + batch.offsets.float() - maps.offsets.detach() + 0.25,
        embedding=maps.embedding,
        activation=maps.activation,
    )
    losses = adaptation_losses(model, trained, batch, config.loss)
    torch.stack(list(losses.values())).sum().backward()
    for name, moved in [(name, True) for name in changes] + [(name, False) for name in stays]:
        gradients = [parameter.grad for parameter in model.get_submodule(name).parameters()]
        assert any(gradient is not None and bool((gradient != 0).any()) for gradient in gradients) == moved, name
