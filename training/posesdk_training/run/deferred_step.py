"""When the figures of training steps are read off the device: after each one, or of many at once.

To read a figure is to wait for the device; a loop that waits after every step cannot prepare the next one meanwhile.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from posesdk_training.data.batches import Batch
from posesdk_training.run.objective import passes
from posesdk_training.run.optimizer import learning_rate
from posesdk_training.run.state import Run
from posesdk_training.run.train_step import (
    NonFiniteLossError,
    NormStatistics,
    OutOfMemoryFault,
    Stepper,
    is_out_of_memory,
    memory_advice,
)

__all__ = ["StepTaker", "Taken", "step_taker"]

Taken = list[tuple[int, dict[str, float]]]
"""Figures of finished steps, each with the number that `Run.step` has after it."""


class StepTaker(Protocol):
    """Takes steps, and gives their figures at once or later."""

    def take(self, batches: Sequence[Batch]) -> Taken:
        """The run's next step. Raises NonFiniteLossError, and OutOfMemoryFault with the weights as before the step."""

    def settle(self) -> Taken:
        """The figures not given yet; to be called before the run's state is saved. Raises NonFiniteLossError."""


def step_taker(run: Run) -> StepTaker:
    """Reads every step, or every `config.check_every` of them together."""
    return _Immediate(run) if run.config.check_every == 1 else _Deferred(run)


class _Immediate:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._stepper = Stepper(run)

    def take(self, batches: Sequence[Batch]) -> Taken:
        return [(self._run.step + 1, self._stepper.take(batches))]

    def settle(self) -> Taken:
        return []


class _Deferred:
    """Losses stay on the device; a loss that is no number is found when they are read, and what follows it is lost."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._waiting: list[tuple[int, float, tuple[str, ...], Tensor]] = []
        self._statistics = NormStatistics(run.network)

    def take(self, batches: Sequence[Batch]) -> Taken:
        run = self._run
        if run.begin_step():
            self._statistics.keep()
        rate = learning_rate(*run.config.schedule_at(run.step))
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        run.optimizer.zero_grad(set_to_none=True)
        try:
            names, losses = self._add_gradients(batches)
            limit = run.config.optimizer.clip_norm or math.inf
            norm = run.fabric.clip_gradients(
                run.module, run.wrapped_optimizer, max_norm=limit, error_if_nonfinite=False
            )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            run.optimizer.zero_grad(set_to_none=True)
            self._statistics.restore()
            raise OutOfMemoryFault(memory_advice(run, batches, error)) from error
        run.wrapped_optimizer.step()
        run.average.update(run.network)
        self._statistics.keep()
        figures = torch.cat([losses, losses.new_full((1,), math.nan) if norm is None else norm.detach().view(1)])
        self._waiting.append((run.step + 1, rate, (*names, "gradient_norm"), figures))
        return self.settle() if (run.step + 1) % run.config.check_every == 0 else []

    def _add_gradients(self, batches: Sequence[Batch]) -> tuple[tuple[str, ...], Tensor]:
        """Names of the losses and their means over the batches; the parameters get the mean of the gradients."""
        run = self._run
        parts: list[dict[str, Tensor]] = [{} for _ in batches]
        for one in passes(batches, run.config.phase_at(run.step), run.fabric.device):
            with run.fabric.no_backward_sync(run.module, enabled=not one.last):
                losses = run.losses(one)
                run.fabric.backward(torch.stack(list(losses.values())).sum() / len(batches))
            parts[one.part] |= {name: value.detach() for name, value in losses.items()}
        return tuple(parts[0]), torch.stack([torch.stack(list(part.values())) for part in parts]).mean(0)

    def settle(self) -> Taken:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        widest = max(len(figures) for *_, figures in waiting)
        table = torch.stack([torch.nn.functional.pad(figures, (0, widest - len(figures))) for *_, figures in waiting])
        if self._run.fabric.world_size > 1:
            table = self._run.fabric.all_reduce(table, reduce_op="mean")  # type: ignore[assignment]
        result: Taken = []
        for (step, rate, names, _), values in zip(waiting, table.tolist(), strict=True):
            figures = dict(zip(names, values, strict=False))
            self._require_finite(step, waiting[0][0], waiting[-1][0], figures)
            kept = {name: value for name, value in figures.items() if math.isfinite(value)}
            result.append((step, {"learning_rate": rate, **kept}))
        return result

    def _require_finite(self, step: int, first: int, last: int, figures: dict[str, float]) -> None:
        run = self._run
        losses = {name: value for name, value in figures.items() if name != "gradient_norm"}
        # The scaler of 16-mixed skips a step without a finite gradient, and takes a smaller scale; a CPU has none.
        scaled = getattr(run.fabric.strategy.precision, "scaler", None) is not None
        if all(map(math.isfinite, (losses if scaled else figures).values())):
            return
        what = "loss" if not all(map(math.isfinite, losses.values())) else "gradient"
        raise NonFiniteLossError(
            f"step {step - 1}: the {what} is not finite ({figures}), seen when steps {first - 1} to {last - 1} were "
            f"read (check_every={run.config.check_every}); the last checkpoint in {run.folder} is kept. Lower "
            "optimizer.learning_rate, set optimizer.clip_norm, use precision 32-true, or find the photos with "
            "check_every=1"
        )
