"""The whole published way from a picture to its poses, with the time of each stage."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posesdk.stopwatch import Stopwatch
from posesdk_training.models.logocap import DenseMaps, LogoCap
from published.adaptation import expand, gaussian, local_context, refine_windows, top_two, windows
from published.decoder import average_flip, find_centers, initial_poses, upsample
from published.preprocess import make_warp
from published.suppression import suppress

__all__ = ["PublishedEstimator", "PublishedPoses"]

Network = Callable[[Tensor], DenseMaps]
"""Normalised images (B, 3, H, W) to their raw maps."""


@dataclass(frozen=True, eq=False)
class PublishedPoses:
    """`keypoints` (N, 17, 2) and `keypoint_scores` (N, 17), `scores` (N,), `timing` in ms per stage."""

    keypoints: NDArray[np.float32]
    keypoint_scores: NDArray[np.float32]
    scores: NDArray[np.float32]
    timing: dict[str, float]


class PublishedEstimator:
    """LOGO-CAP as published, on the network and with the sizes of `model`, one picture at a time.

    The flip test is what the published implementation always does; the network then gets a batch of the image and its
    mirror image. `network` stands for the model's own dense part. Every center above the threshold is refined. It runs
    where the model lies; on a GPU the times of stages are those in which its work is started.
    """

    def __init__(self, model: LogoCap, *, flip: bool = True, network: Network | None = None) -> None:
        self._model = model.eval()
        self._network: Network = network or model
        self._flip = flip
        adaptation = model.spec.adaptation
        if adaptation.reweigh_sigma is None:
            raise ValueError(f"model {model.spec.name} has no reweigh_sigma, which the published arithmetic needs")
        self._device = next(model.parameters()).device
        self._prior = gaussian(adaptation.global_size, adaptation.reweigh_sigma, self._device)

    @torch.inference_mode()
    def run(self, image: NDArray[np.uint8]) -> PublishedPoses:
        """The poses in a picture (h, w, 3) uint8 BGR, in its pixels."""
        watch = Stopwatch()
        warp = make_warp((image.shape[0], image.shape[1]), self._model.spec.input.side)
        pixels = warp.input_of(image)
        watch.lap("preprocess", 0)
        poses = self._find(pixels.to(self._device), watch).cpu().numpy()
        scores = poses[..., 2].mean(axis=1)
        poses, scores = poses[scores > 0], scores[scores > 0]
        points = warp.to_picture(poses[..., :2])
        kept = suppress(points, scores)
        watch.lap("postprocess", 0)
        return PublishedPoses(points[kept], poses[kept, :, 2], scores[kept], watch.laps[0])

    @torch.inference_mode()
    def find(self, pixels: Tensor) -> Tensor:
        """x, y in net px and score (N, 17, 3) of every center of one normalised image (1, 3, H, W)."""
        return self._find(pixels, Stopwatch())

    def _find(self, pixels: Tensor, watch: Stopwatch) -> Tensor:
        maps = self._network(torch.cat((pixels, pixels.flip(3))) if self._flip else pixels)
        heatmaps, offsets = maps.heatmaps, maps.offsets
        watch.lap("trunk", 0)
        if self._flip:
            heatmaps, offsets = average_flip(heatmaps, offsets)
        full = upsample(heatmaps)[0]
        decode, adaptation = self._model.spec.decode, self._model.spec.adaptation
        centers = find_centers(full[-1], most=decode.max_people, threshold=decode.center_threshold)
        poses = initial_poses(centers, offsets[0])
        watch.lap("decode", 0)
        context = local_context(maps.embedding[:1], expand(poses, adaptation.local_size))
        watch.lap("context", 0)
        attraction = self._model.joints_mlp(context).clamp(0, 1)
        watch.lap("adapt", 0)
        reweighed = windows(full[:-1], poses, adaptation.global_size) * self._prior
        keypoints = top_two(refine_windows(reweighed, attraction), poses)
        keypoints[..., 2] *= centers[:, 2:]
        watch.lap("refine", 0)
        return keypoints
