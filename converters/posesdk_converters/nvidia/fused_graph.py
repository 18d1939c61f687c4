"""A model with its whole decoder as one torch module, for GPUs: the number of candidates is fixed.

The arithmetic is that of `posesdk.decode` and `posesdk.adapt` in frame "consistent". Sampling on a lattice is written
as gathers and products with interpolation matrices, the attraction maps are the weights of one grouped convolution, so
that nothing in the graph is beyond TensorRT's ONNX parser. Poses too near to each other are left to the host.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posesdk.adapt import uses_attraction
from posesdk.spec import STRIDE, ModelSpec
from posesdk.windows import reweighing_window
from posesdk_training.models.adaptation import CELL_CENTER, PEAK_WEIGHTS, UNIT_SIGMA
from posesdk_training.models.graphs import Adapt, Trunk
from posesdk_training.models.logocap import DenseMaps, LogoCap, flip_average

__all__ = ["Fused", "check_fusible"]


def check_fusible(spec: ModelSpec) -> None:
    """Raises ValueError for a model that the fused graph does not hold."""
    if spec.method != "logocap" or spec.centers != "single":
        raise ValueError(
            f"model {spec.name} has method {spec.method!r} with centers {spec.centers!r}; a fused graph is for method "
            "'logocap' with centers 'single': convert it without"
        )
    if spec.frame != "consistent":
        raise ValueError(
            f"model {spec.name} has frame {spec.frame!r}, whose sampler has a fault at the border that a fused graph "
            "does not repeat; convert it without the fused graph"
        )
    if spec.adaptation.level != "full" or not uses_attraction(spec):
        raise ValueError(
            f"model {spec.name} has adaptation level {spec.adaptation.level!r} with prior {spec.adaptation.prior!r}; a "
            "fused graph is for level 'full' with attraction maps: convert it without"
        )


class Fused(nn.Module):
    """`image` uint8 (1, H, W, 3) RGB -> keypoints (N, K, 2), keypoint scores (N, K), center scores (N).

    N is `people`, the keypoints are in net px as `posesdk.adapt.adapt_poses` gives them, best center first. Where there
    are fewer candidates the rest has center score 0 and keypoints without meaning. A model that asks for the flip test
    has it in the graph. Raises ValueError as `check_fusible` does.
    """

    mesh: Tensor
    prior: Tensor

    def __init__(self, model: LogoCap, people: int) -> None:
        super().__init__()
        check_fusible(model.spec)
        if people < 1:
            raise ValueError(f"a fused graph is for at least 1 person, got {people}")
        self.spec, self.people = model.spec, people
        self.trunk = Trunk(model)
        self.adapt = Adapt(model)
        radius = self.spec.adaptation.local_size // 2
        steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
        sigmas = torch.tensor(self.spec.skeleton.sigmas, dtype=torch.float32)
        self.register_buffer("mesh", steps * (sigmas / UNIT_SIGMA)[:, None])  # (K, n)
        self.register_buffer("prior", torch.from_numpy(reweighing_window(self.spec.adaptation).copy()))
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The candidates of one image."""
        heatmaps, offsets, embedding = self._maps(image)
        cells, confidence = self._centers(heatmaps[:, -1:])
        poses = self._initial_poses(cells, offsets[0])
        attraction = self.adapt(self._context(poses, embedding)).clamp(0, 1)
        windows = self._windows(poses, heatmaps[0, :-1]) * self.prior
        keypoints, values = self._refine(poses, windows, attraction)
        return keypoints, values * confidence[:, None], confidence

    def _maps(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(1, K+1, h, w), (1, 2K, h, w) and (h, w, d)."""
        if not self.spec.decode.flip_test:
            heatmaps, offsets, embedding = self.trunk(image)
            return heatmaps, offsets, embedding[0]
        pixels = image.float()
        heatmaps, offsets, embedding = self.trunk(torch.cat((pixels, pixels.flip(2))))
        own, mirrored = (DenseMaps(heatmaps[i : i + 1], offsets[i : i + 1], embedding[i : i + 1]) for i in (0, 1))
        mean = flip_average(own, mirrored, self.spec.skeleton)
        return mean.heatmap_logits, mean.offsets, embedding[0]

    def _centers(self, center_map: Tensor) -> tuple[Tensor, Tensor]:
        """Cells (N, 2) and scores (N) of the highest maxima; without any of enough height that of the highest pixel."""
        full = F.interpolate(center_map, scale_factor=float(STRIDE), mode="bilinear", align_corners=False)
        inner = torch.where(full == F.max_pool2d(full, 3, 1, 1), full, 0.0)[:, :, 1:-1, 1:-1]
        confidence, index = inner.flatten().topk(self.people)  # the replicated border makes maxima of every tail
        highest, outer = full.flatten().topk(1)
        found = (confidence >= self.spec.decode.center_threshold) & (confidence > 0)
        first = found[:1]
        confidence = torch.where(found, confidence, 0.0)
        confidence = torch.cat((torch.where(first, confidence[:1], highest.clamp(min=0)), confidence[1:]))
        centers = _places(index, inner.shape[3]) + 1
        best = torch.where(first[:, None], centers[:1], _places(outer, full.shape[3]))
        return (torch.cat((best, centers[1:])) / STRIDE).floor(), confidence

    def _initial_poses(self, cells: Tensor, offsets: Tensor) -> Tensor:
        """(N, 2) and (2K, h, w) -> (N, K, 2)."""
        column, row = cells.long().unbind(1)
        index = row * offsets.shape[2] + column
        displacement = offsets.flatten(1).index_select(1, index).t().reshape(self.people, -1, 2)
        return (cells[:, None] - displacement) * STRIDE + CELL_CENTER

    def _context(self, poses: Tensor, embedding: Tensor) -> Tensor:
        """Embedding (h, w, d) on the mesh of every keypoint of (N, K, 2): (N, K*d, n, n)."""
        height, width, depth = embedding.shape
        rows = embedding.reshape(-1, depth)
        x_taps = _taps(poses[..., :1] + self.mesh, width)
        y_taps = _taps(poses[..., 1:] + self.mesh, height)
        total = torch.zeros((), dtype=embedding.dtype)
        for y_cell, y_weight in y_taps:
            for x_cell, x_weight in x_taps:
                index = y_cell[..., :, None] * width + x_cell[..., None, :]  # (N, K, n, n)
                cells = rows.index_select(0, index.flatten()).view(*index.shape, depth)
                total = total + cells * (y_weight[..., :, None] * x_weight[..., None, :])[..., None]
        return total.permute(0, 1, 4, 2, 3).flatten(1, 2)

    def _windows(self, poses: Tensor, heatmaps: Tensor) -> Tensor:
        """Windows (K, N, a, a) around (N, K, 2) in the upsampled heatmaps (K, h, w)."""
        count, height, width = heatmaps.shape
        size = self.spec.adaptation.global_size
        centers = poses.transpose(0, 1)  # (K, N, 2)
        y_matrix = _window_matrix(centers[..., 1], height, size)  # (K, N, a, h)
        x_matrix = _window_matrix(centers[..., 0], width, size)
        rows = y_matrix.reshape(count, self.people * size, height) @ heatmaps
        return rows.reshape(count, self.people, size, width) @ x_matrix.transpose(2, 3)

    def _refine(self, poses: Tensor, windows: Tensor, attraction: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints (N, K, 2) and values (N, K) of windows (K, N, a, a) filtered by attraction (N, K, n, n)."""
        size, radius = windows.shape[-1], attraction.shape[-1] // 2
        kernels = attraction.flip(2, 3).transpose(0, 1) / attraction.shape[-1] ** 2
        groups = self.people * poses.shape[1]
        responses = F.conv2d(
            windows.reshape(1, groups, size, size),
            kernels.reshape(groups, 1, *attraction.shape[2:]),
            padding=radius,
            groups=groups,
        )
        values, index = responses.reshape(-1, self.people, size * size).topk(2)  # (K, N, 2)
        places = _places(index, size)  # (K, N, 2 peaks, 2)
        first, second = PEAK_WEIGHTS
        shift = first * places[:, :, 0] + second * places[:, :, 1] - size // 2
        value = first * values[..., 0] + second * values[..., 1]
        answered = F.max_pool2d(attraction, attraction.shape[-1])[..., 0] > 0  # (N, K, 1)
        return torch.where(answered, poses + shift.transpose(0, 1), poses), value.t()


def _places(index: Tensor, width: int) -> Tensor:
    """x and y (..., 2) of flat indices (...) into rows of `width`, as whole float32 numbers."""
    flat = index.float()
    # Half a pixel more, so that a division which is off in its last bit does not end in the row before.
    row = ((flat + 0.5) / width).floor()
    return torch.stack((flat - row * width, row), dim=-1)


def _taps(positions: Tensor, cells: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two (index, weight) of linear sampling of `cells` cells at net px, replicated at the ends."""
    places = (positions - CELL_CENTER) / STRIDE
    low = places.floor().clamp(0, cells - 1)
    high = (low + 1).clamp(max=cells - 1)
    fraction = (places - low).clamp(0, 1)
    return (low.long(), 1 - fraction), (high.long(), fraction)


def _window_matrix(centers: Tensor, cells: int, size: int) -> Tensor:
    """(..., size, cells): from the cells of an axis to the samples 1 net px apart around each of `centers` (...).

    Upsampling and then sampling the pixels, both linear and replicated at the ends, in one matrix.
    """
    steps = torch.arange(size + 1, dtype=torch.float32)
    positions = centers[..., None] + (steps[:-1] - size // 2)
    pixels = positions[..., :1].floor() + steps  # (..., size + 1)
    fraction = (positions - pixels[..., :-1]).clamp(0, 1)[..., None]
    inside = pixels.clamp(0, STRIDE * cells - 1)
    places = ((inside - CELL_CENTER) / STRIDE).clamp(0, cells - 1)
    distance = (places[..., None] - torch.arange(cells, dtype=torch.float32)).abs()
    upsampling = (1 - distance).clamp(min=0)  # (..., size + 1, cells)
    return upsampling[..., :-1, :] * (1 - fraction) + upsampling[..., 1:, :] * fraction
