"""What the benchmark on GPUs does that needs none: the static graph, the loop around it, and its end without a GPU."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posesdk.spec import AdaptationSpec, DecodeSpec, HeadSpec, HRNetSpec, InputSpec, ModelSpec

torch = pytest.importorskip("torch", reason="the static graph is a torch module")
pytest.importorskip("onnx", reason="the fused graph stands beside its export")

from posesdk_training.models.adaptation import AttentiveNorm  # noqa: E402
from posesdk_training.torch_runtime import torch_pipeline  # noqa: E402
from w32.frames_through import FramesThrough  # noqa: E402
from w32.maps import FixedTrunk, planted_maps  # noqa: E402
from w32.static_graph import fold_norms, static_graph  # noqa: E402
from w32.weights import random_model, random_pictures  # noqa: E402

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/cuda_speed.py"
SIDE, PLACES, PEOPLE = 256, 9, 4
NEAR = 1e-3
"""px"""


@pytest.fixture(scope="module")
def model():
    spec = ModelSpec(
        name="tiny",
        input=InputSpec(side=SIDE),
        backbone=HRNetSpec(channels=(4, 8, 16, 32), modules=(1, 1, 1), blocks=(1, 1, 1)),
        heads=HeadSpec(heatmap_channels=8, offset_channels=16, embedding=4),
        decode=DecodeSpec(max_people=PLACES),
        adaptation=AdaptationSpec(local_size=7, global_size=33, message_channels=(16, 12, 8), affine_pairs=5),
    )
    return random_model(spec)


class PlantedMaps(torch.nn.Module):
    """The maps of planted people, whatever the image."""

    def __init__(self, maps):
        super().__init__()
        self.maps = tuple(torch.from_numpy(maps[name].copy()) for name in ("heatmaps", "offsets", "embedding"))

    def forward(self, image):
        return self.maps


class OnHost:
    """A module as a graph that is started: it runs when it is waited for, once for each start."""

    def __init__(self, module):
        self.module, self.waiting = module, None

    def submit(self, values):
        assert self.waiting is None, "what was submitted before was not collected"
        self.waiting = torch.from_numpy(values)

    def collect(self):
        image, self.waiting = self.waiting, None
        with torch.inference_mode():
            return [output.float().numpy() for output in self.module(image)]


def test_the_static_graph_finds_the_poses_of_the_reference_formulas(model):
    image = random_pictures(1, (SIDE, SIDE))[0][0]
    pipeline = torch_pipeline(model)
    maps = planted_maps(pipeline, image, PEOPLE)
    expected = replace(pipeline, trunk=FixedTrunk(pipeline.trunk, maps)).run(image).keypoints
    graph = static_graph(model, PLACES, half=False)
    graph.trunk = PlantedMaps(maps)
    found = FramesThrough(OnHost(graph), model.spec, (SIDE, SIDE)).run(image)
    assert len(expected) == PEOPLE
    np.testing.assert_allclose(found, expected, rtol=0, atol=NEAR)


def test_folding_norms_keeps_what_the_network_computes(model):
    folded = static_graph(model, PLACES, half=False).trunk.model
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted, found = model(images), folded(images)
    for name in ("heatmap_logits", "offsets", "embedding"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=1e-3, atol=1e-4)
    norms = [type(layer) for layer in folded.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert norms == [AttentiveNorm]
    assert any(type(layer) is torch.nn.BatchNorm2d for layer in model.modules()), "the model itself was changed"


def test_a_norm_without_a_convolution_before_it_stays():
    layers = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.BatchNorm2d(2)).eval()
    fold_norms(layers)
    assert type(layers[1]) is torch.nn.BatchNorm2d


def test_in_half_precision_last_layers_stay_float32(model):
    image = torch.from_numpy(random_pictures(1, (64, 64))[0])
    graph = static_graph(model, PLACES, half=True)
    exact = static_graph(model, PLACES, half=False)
    with torch.no_grad():
        heatmaps, offsets, embedding = graph.trunk(image)
        attraction = graph.adapt(torch.rand(2, 17 * 4, 7, 7))
        keypoints, *_ = graph(image)
        wanted, *_ = exact.trunk(image)
    assert [value.dtype for value in (heatmaps, offsets, attraction, keypoints)] == [torch.float32] * 4
    assert embedding.dtype == torch.float16
    assert 0 < float((heatmaps - wanted).abs().max()) < 0.05 * float(wanted.abs().max())


def test_a_stream_gives_the_poses_of_every_frame_in_order(model):
    frames = [one[0] for one in random_pictures(3, (90, 120))]
    through = FramesThrough(OnHost(static_graph(model, PLACES, half=False)), model.spec, (90, 120))
    streamed = list(through.stream(frames))
    assert len(streamed) == 3
    for found, frame in zip(streamed, frames, strict=True):
        np.testing.assert_array_equal(found, through.run(frame))
    assert not list(through.stream([]))


def test_without_a_gpu_the_benchmark_says_so_and_ends_with_3(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(SCRIPT), "--cache", str(tmp_path / "cache")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 3
    assert "No CUDA device" in done.stderr
    assert not (tmp_path / "cache").exists()
