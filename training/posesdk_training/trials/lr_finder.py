"""Learning-rate range test (Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3).

The rate rises exponentially from step to step of an otherwise ordinary training, on the run's own data and losses; the
loss falls fastest where the rate suits, and rises where it is too high.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray

from posesdk_runtimes.errors import DataError
from posesdk_training.config import TrainConfig
from posesdk_training.data.batches import Batch
from posesdk_training.run.objective import passes
from posesdk_training.run.state import Run
from posesdk_training.train import loaded_batches, make_fabric

__all__ = ["RangeTest", "Suggestion", "range_test", "smooth", "suggest"]

Floats = NDArray[np.float64]

MEMORY = 0.9
"""Share of the running mean of the loss that the next step keeps, while the test looks for divergence."""
DIVERGED = 4.0
"""Times the lowest running mean: the loss has diverged (the convention of fastai's range test)."""
SETTLED = 10
"""Steps before the running mean is believed."""
SMOOTHING = 0.03
"""Sigma of the smoothing, as a share of all steps."""
RISEN = 1.2
"""Times the lowest smoothed loss, and not below the first: where the loss counts as risen."""
CERTAIN = 4.0
"""Standard errors of the smoothed loss; it is compared at many rates, of which the lowest is taken."""
MARGIN = 10.0
"""How far below the rate of divergence a rate is safe."""


@dataclass(frozen=True)
class RangeTest:
    """What a range test saw: `rates` (N,) and the `losses` (N,) of its steps; whether it ended in divergence."""

    rates: Floats
    losses: Floats
    diverged: bool


@dataclass(frozen=True)
class Suggestion:
    """Rates that a test speaks for: where the loss falls fastest, and where it has risen again; None where nowhere.

    A model that is trained already may have no fall beyond the scatter of its losses.
    """

    steepest: float | None
    risen: float | None

    @property
    def rate(self) -> float | None:
        """The lower of the rate of steepest descent and a tenth of the rate at which the loss has risen."""
        found = [self.steepest, None if self.risen is None else self.risen / MARGIN]
        return min((rate for rate in found if rate is not None), default=None)


def range_test(
    config: TrainConfig,
    *,
    steps: int = 200,
    lowest: float = 1e-6,
    highest: float = 1.0,
    phase: int = 0,
    accelerator: str = "auto",
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> RangeTest:
    """Sweeps the rate from `lowest` to `highest` on `phase` of a run; ends early when the loss diverges.

    Starts from what the run would start from; writes nothing. `on_step` gets the number of steps done and the loss.
    Raises ValueError for a range or a phase that is none, and what `fit` raises for data and devices.
    """
    if not 0 < lowest < highest:
        raise ValueError(f"the rates must rise from above 0, got {lowest} to {highest}")
    if steps < 2 * SETTLED:
        raise ValueError(f"{steps} steps are too few for a range test: take {2 * SETTLED} or more")
    if not 0 <= phase < len(config.phases):
        raise ValueError(f"phase {phase}: the configuration has the phases 0 to {len(config.phases) - 1}")
    alone = config.phases[phase].model_copy(update={"until": 1.0})
    config = config.model_copy(update={"phases": (alone,), "steps": steps})
    fabric = make_fabric(config, accelerator=accelerator)
    fabric.launch()
    fabric.seed_everything(config.seed, workers=False, verbose=False)
    rates = np.geomspace(lowest, highest, steps)
    with tempfile.TemporaryDirectory() as empty:
        run = Run(config, Path(empty), fabric)
        with closing(loaded_batches(run)) as batches:
            losses, diverged = _sweep(run, batches, rates, on_step)
    return RangeTest(rates[: len(losses)], np.array(losses), diverged)


def _sweep(
    run: Run, batches: Iterator[Batch], rates: Floats, on_step: Callable[[int, float], None]
) -> tuple[list[float], bool]:
    """The losses of the steps up to the last, or to divergence, and whether it came to that."""
    run.module.train()
    losses: list[float] = []
    mean, lowest = 0.0, math.inf
    for number, rate in enumerate(rates, start=1):
        for group in run.optimizer.param_groups:
            group["lr"] = float(rate)
        loss = _step(run, list(islice(batches, run.config.accumulate)))
        if not math.isfinite(loss):
            return losses, True
        losses.append(loss)
        on_step(number, loss)
        mean = MEMORY * mean + (1 - MEMORY) * loss
        present = mean / (1 - MEMORY**number)  # the bias of a mean that started at 0
        if number > SETTLED:
            lowest = min(lowest, present)
            if present > DIVERGED * lowest:
                return losses, True
    return losses, False


def _step(run: Run, batches: list[Batch]) -> float:
    """One training step; its loss, which is no number where the gradient is none. Such a step is not taken."""
    fabric: Fabric = run.fabric
    run.optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for one in passes(batches, run.config.phases[0], fabric.device):
        loss = torch.stack(list(run.losses(one).values())).sum() / len(batches)
        total += float(loss.detach())
        fabric.backward(loss)
    limit = run.config.optimizer.clip_norm or math.inf
    norm = fabric.clip_gradients(run.module, run.wrapped_optimizer, max_norm=limit, error_if_nonfinite=False)
    scaled = run.config.precision == "16-mixed"  # its scaler leaves such a step out by itself
    if not scaled and (norm is None or not bool(torch.isfinite(norm))):
        return math.nan
    run.wrapped_optimizer.step()
    return total


def smooth(losses: Floats) -> Floats:
    """Losses (N,) averaged with their neighbours on both sides, so that the curve does not lag behind the rates."""
    places = np.arange(len(losses))
    sigma = max(1.0, SMOOTHING * len(losses))
    weights = np.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2))
    return np.asarray(weights @ losses / weights.sum(1), np.float64)


def _falls(losses: Floats, curve: Floats, bottom: int) -> bool:
    """Whether the smoothed curve falls to its bottom by more than the scatter of single losses explains."""
    scatter = float((losses - curve)[: bottom + 1].std())
    averaged = 2 * math.sqrt(math.pi) * max(1.0, SMOOTHING * len(losses))  # losses that a Gaussian window amounts to
    fall = float(curve[: bottom + 1].max() - curve[bottom])
    return bottom > 0 and fall > CERTAIN * scatter / math.sqrt(averaged)


def suggest(test: RangeTest) -> Suggestion:
    """The rates that a test speaks for. Raises DataError for one that ended before it had begun."""
    if len(test.losses) < SETTLED:
        raise DataError(
            f"the loss was no number after {len(test.losses)} steps, at a rate of {test.rates[-1:]}: "
            "start the test from a lower rate, and check the data"
        )
    curve = smooth(test.losses)
    bottom = int(curve.argmin())
    steepest = None
    if _falls(test.losses, curve, bottom):
        slopes = np.gradient(curve, np.log(test.rates))[: bottom + 1]
        steepest = float(test.rates[slopes.argmin()])
    beyond = np.nonzero(curve[bottom:] > max(float(curve[0]), RISEN * float(curve[bottom])))[0]
    risen = float(test.rates[bottom + beyond[0]]) if len(beyond) else None
    if risen is None and test.diverged:
        risen = float(test.rates[-1])
    return Suggestion(steepest, risen)
