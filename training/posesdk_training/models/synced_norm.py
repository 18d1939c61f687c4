"""Batch norm whose statistics are those of all processes of a run.

torch's own works on GPUs alone, and its conversion would replace `AttentiveNorm` by a plain norm.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from posesdk_training.models.adaptation import AttentiveNorm

__all__ = ["synchronise_norms"]


class SyncedNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` over the samples of every process, which may have different numbers of them."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same; every process has to call it."""
        if not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            values = x.float()
            channels = values.shape[1]
            sums = torch.cat([values.sum((0, 2, 3)), values.new_tensor([values.numel() / channels])])
            total = _summed(sums)
            count = total[-1].detach()
            mean = (total[:-1] / count).view(1, channels, 1, 1)
            deviation = values - mean
            variance = _summed(deviation.square().sum((0, 2, 3))) / count
            self._follow(mean.detach().flatten(), variance.detach() * count / (count - 1))
            normal = deviation * torch.rsqrt(variance + self.eps).view(1, channels, 1, 1)
            if self.affine:
                normal = normal * self.weight.view(1, channels, 1, 1) + self.bias.view(1, channels, 1, 1)
        result: Tensor = normal.to(x.dtype)
        return result

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        if not self.track_running_stats:  # as torch's own: what is there is kept
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _Sum(torch.autograd.Function):
    """Sum over all processes; each process's share gets the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _summed(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total


class SyncedAttentiveNorm(AttentiveNorm, SyncedNorm):
    """`AttentiveNorm` that normalises as `SyncedNorm` does, which comes next in its order of bases."""


SYNCED: dict[type[nn.BatchNorm2d], type[nn.BatchNorm2d]] = {
    nn.BatchNorm2d: SyncedNorm,
    AttentiveNorm: SyncedAttentiveNorm,
}


def synchronise_norms(network: nn.Module) -> None:
    """Turns the batch norms of a network into synced ones in place, their weights kept; no-op in a single process."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = SYNCED[type(module)]
