"""Networks that run in full, and then answer with maps that were given to them."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posesdk.benchmark.planted import mirror_maps, plant_people
from posesdk.pipeline import Pipeline
from posesdk.preprocess import make_letterbox
from posesdk_runtimes.base import Runtime
from posesdk_runtimes.base import Tensor as Array
from posesdk_training.models.logocap import DenseMaps, LogoCap

__all__ = ["FixedNetwork", "FixedTrunk", "planted_maps"]

Maps = Mapping[str, Array]
"""Outputs of a trunk for one image, by name."""


def planted_maps(pipeline: Pipeline, image: NDArray[np.uint8], people: int) -> Maps:
    """The maps of exactly so many people over what the trunk of `pipeline` sees in a picture (h, w, 3) uint8 BGR."""
    letterbox = make_letterbox((image.shape[0], image.shape[1]), pipeline.spec.input, pipeline.spec.frame)
    return plant_people(pipeline, people).trunk.run({"image": letterbox.warp(image)[None]})


class FixedTrunk:
    """A trunk of the product: runs, and answers with `maps`."""

    def __init__(self, trunk: Runtime, maps: Maps) -> None:
        self._trunk, self._maps = trunk, maps
        self.inputs, self.outputs = trunk.inputs, trunk.outputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The fixed maps."""
        self._trunk.run(feeds)
        return dict(self._maps)

    def close(self) -> None:
        """Frees the trunk."""
        self._trunk.close()


class FixedNetwork:
    """The dense part of a torch model: runs, and answers with `maps`, to a batch of two with those of a mirror image.

    The maps are of models without an activation. The embedding of the mirror image is that of the image: nobody reads
    it.
    """

    def __init__(self, model: LogoCap, maps: Maps) -> None:
        self._model = model
        mirrored = mirror_maps(maps["heatmaps"][0], maps["offsets"][0], model.spec)
        pairs = zip((maps["heatmaps"][0], maps["offsets"][0]), mirrored, strict=True)
        device = next(model.parameters()).device
        heatmaps, offsets = (torch.from_numpy(np.stack(pair)).to(device) for pair in pairs)
        embedding = torch.from_numpy(maps["embedding"].copy()).permute(0, 3, 1, 2).contiguous().to(device)
        self._both = DenseMaps(heatmaps, offsets, embedding.repeat(2, 1, 1, 1))

    def __call__(self, images: Tensor) -> DenseMaps:
        """The fixed maps for a batch of one or two."""
        batch = len(self._model(images).offsets)
        both = self._both
        return DenseMaps(both.heatmap_logits[:batch], both.offsets[:batch], both.embedding[:batch])
