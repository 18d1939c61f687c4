"""Photometric augmentation of a whole batch, by the laws of `augment.jitter_colors`."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ColorDraws", "blur_kernels", "draw_colors", "jitter"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ColorDraws:
    """What happens to each of B samples: color' = `mix` color + `shift` + `mean_share` * (mean of the whole crop).

    `mix` (B, 3, 3) and `shift`, `mean_share` (B, 3) over R, G, B. Samples `blurred` (b,) are blurred with sigmas
    (b,), samples `noisy` (n,) get noise of the deviations (n,); both kinds are known on the host.
    """

    mix: Floats
    shift: Floats
    mean_share: Floats
    blurred: NDArray[np.int64]
    blur_sigmas: Floats
    noisy: NDArray[np.int64]
    noise_deviations: Floats

    def at(self, resolution: int) -> "ColorDraws":
        """The same for crops of `resolution` times the px a side: what they are once averaged down is as it was."""
        return replace(
            self,
            blur_sigmas=resolution * self.blur_sigmas,
            noise_deviations=resolution * self.noise_deviations,
        )


def draw_colors(rng: np.random.Generator, number: int) -> ColorDraws:
    """Random brightness, contrast, saturation, color cast, gray, blur and noise of `number` samples."""
    changed = rng.random(number) < 0.8
    gain = np.where(changed, rng.uniform(0.6, 1.4, number), 1.0)
    bias = np.where(changed, rng.uniform(-25, 25, number), 0.0)
    saturation = np.where(changed, rng.uniform(0.3, 1.5, number), 1.0)
    contrast = np.where(changed, rng.uniform(0.6, 1.4, number), 1.0)
    cast = np.where(changed[:, None], rng.uniform(0.88, 1.12, (number, 3)), 1.0)
    gray = rng.random(number) < 0.08
    third = np.full((3, 3), 1 / 3)
    own = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * third
    mix = cast[:, :, None] * (contrast * gain)[:, None, None] * own
    # Contrast turns around the mean, which brightness has changed: (1 - contrast) * (gain * mean + bias).
    shift = cast * bias[:, None]
    mean_share = cast * ((1 - contrast) * gain)[:, None]
    mix = np.where(gray[:, None, None], third @ mix, mix)
    shift, mean_share = (np.where(gray[:, None], value.mean(1, keepdims=True), value) for value in (shift, mean_share))
    blurred, noisy = np.flatnonzero(rng.random(number) < 0.12), np.flatnonzero(rng.random(number) < 0.2)
    return ColorDraws(
        mix,
        shift,
        mean_share,
        blurred,
        rng.uniform(0.4, 1.3, len(blurred)),
        noisy,
        rng.uniform(1, 10, len(noisy)),
    )


def blur_kernels(sigmas: Floats) -> Floats:
    """(b, 2r + 1) normalised Gaussians, each as wide as OpenCV makes it for float pictures, the widest of radius r."""
    radii = (np.round(sigmas * 8 + 1).astype(np.int64) | 1) // 2
    widest = radii.max(initial=0)
    steps = np.arange(-widest, widest + 1)
    weights = np.exp(-(steps**2) / (2 * sigmas[:, None] ** 2)) * (np.abs(steps) <= radii[:, None])
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float64)


def jitter(
    colors: Tensor,
    mix: Tensor,
    shift: Tensor,
    mean_share: Tensor,
    *,
    blur: tuple[Tensor, Tensor],
    noise: tuple[Tensor, Tensor],
    generator: torch.Generator,
) -> Tensor:
    """(B, S, S, 3) float32 colors changed; `mix` (B, 3, 3), `shift` and `mean_share` (B, 3).

    `blur`: sample numbers (b,) and kernels (b, n); `noise`: sample numbers (n,) and deviations (n,).
    """
    batch, side = colors.shape[0], colors.shape[1]
    flat = colors.reshape(batch, -1, 3)
    offset = shift + mean_share * flat.mean(dim=(1, 2))[:, None]
    result = torch.baddbmm(offset[:, None], flat, mix.transpose(1, 2)).view(batch, side, side, 3)
    blurred, kernels = blur
    if len(blurred):
        result = result.index_copy(0, blurred, _blur(result.index_select(0, blurred), kernels))
    noisy, deviations = noise
    if len(noisy):
        shape = (len(noisy), side, side, 3)
        grain = torch.randn(shape, generator=generator, device=colors.device) * deviations[:, None, None, None]
        result = result.index_add(0, noisy, grain)
    return result


def _blur(colors: Tensor, kernels: Tensor) -> Tensor:
    """(b, S, S, 3) along both sides with the kernels (b, n), mirrored at the border."""
    radius, side = kernels.shape[1] // 2, colors.shape[1]
    planes = F.pad(colors.permute(0, 3, 1, 2), (radius, radius, radius, radius), mode="reflect")
    weights = kernels[:, :, None, None, None].unbind(1)
    rows = planes[:, :, :side] * weights[0]
    for step, weight in enumerate(weights[1:], 1):
        rows = torch.addcmul(rows, planes[:, :, step : step + side], weight)
    result = rows[..., :side] * weights[0]
    for step, weight in enumerate(weights[1:], 1):
        result = torch.addcmul(result, rows[..., step : step + side], weight)
    return result.permute(0, 2, 3, 1)
