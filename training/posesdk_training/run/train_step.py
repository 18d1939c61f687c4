"""One step of training: gradients of its batches, what happens when they are no numbers, the optimizer."""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist

from posesdk_runtimes.errors import PoseSDKError
from posesdk_training.data.batches import Batch
from posesdk_training.run.objective import passes
from posesdk_training.run.optimizer import learning_rate
from posesdk_training.run.state import Run

__all__ = ["NonFiniteLossError", "NormStatistics", "OutOfMemoryFault", "Stepper", "is_out_of_memory", "memory_advice"]

logger = logging.getLogger(__name__)

NAMED_PHOTOS = 8
"""How many photos of a batch a message names."""
CPU_OUT_OF_MEMORY = "not enough memory: you tried to allocate"
"""How torch's allocator of the CPU says it, in a plain RuntimeError."""


class NonFiniteLossError(PoseSDKError):
    """The loss or its gradient became NaN or infinite."""


class OutOfMemoryFault(PoseSDKError):
    """A step needs more memory than there is; the run's state is that before the step."""


class _NonFiniteError(Exception):
    """What is no number, and on which samples."""


class Stepper:
    """Takes the steps of a run, and leaves out those without a finite gradient where the configuration says so."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._skipped = 0  # in a row
        self._statistics = NormStatistics(run.network)

    def take(self, batches: Sequence[Batch]) -> dict[str, float]:
        """The figures of a step on `config.accumulate` batches: mean losses, learning rate, norm of the gradient.

        A skipped step has none. Raises NonFiniteLossError, and OutOfMemoryFault with the state as before the step.
        """
        run = self._run
        if run.begin_step():
            self._statistics.keep()
        rate = learning_rate(*run.config.schedule_at(run.step))
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        run.optimizer.zero_grad(set_to_none=True)
        try:
            losses = self._add_gradients(batches)
            norm = self._clip(batches)
        except _NonFiniteError as fault:
            self._undo()
            return self._leave_out(str(fault))
        except RuntimeError as error:  # OutOfMemoryError is one
            if not is_out_of_memory(error):
                raise
            self._undo()
            raise OutOfMemoryFault(memory_advice(run, batches, error)) from error
        run.wrapped_optimizer.step()
        run.average.update(run.network)
        self._statistics.keep()
        self._skipped = 0
        figures = {"learning_rate": rate, **losses}
        return figures | {"gradient_norm": norm} if math.isfinite(norm) else figures

    def _add_gradients(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Mean losses by name, over batches and processes; the parameters get the mean of the gradients."""
        run = self._run
        sums: dict[str, float] = {}
        for one in passes(batches, run.config.phase_at(run.step), run.fabric.device):
            with run.fabric.no_backward_sync(run.module, enabled=not one.last):
                losses = run.losses(one)
                terms = torch.stack(list(losses.values()))
                total = terms.sum()
                values = dict(zip(losses, self._mean(terms.detach()), strict=True))
                if not math.isfinite(sum(values.values())):
                    own = dict(zip(losses, terms.detach().tolist(), strict=True))
                    affected = [] if math.isfinite(float(total.detach())) else [one.part]
                    raise _NonFiniteError(f"the loss is not finite ({own}){self._culprits(batches, affected)}")
                run.fabric.backward(total / len(batches))
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
        return {name: value / len(batches) for name, value in sums.items()}

    def _mean(self, terms: Tensor) -> list[float]:
        """Over all processes, so that each of them comes to the same decision."""
        fabric = self._run.fabric
        if fabric.world_size > 1:
            terms = fabric.all_reduce(terms, reduce_op="mean")  # type: ignore[assignment]
        return [float(value) for value in terms.tolist()]

    def _clip(self, batches: Sequence[Batch]) -> float:
        """Norm of the gradient, before it is clipped where the configuration wants that."""
        run, settings = self._run, self._run.config.optimizer
        limit = settings.clip_norm or math.inf
        norm = run.fabric.clip_gradients(run.module, run.wrapped_optimizer, max_norm=limit, error_if_nonfinite=False)
        value = math.nan if norm is None else float(norm)
        # The scaler of 16-mixed skips such a step, and takes a smaller scale; on a CPU there is none.
        scaled = getattr(run.fabric.strategy.precision, "scaler", None) is not None
        if not (math.isfinite(value) or scaled):
            everything = list(range(len(batches)))
            raise _NonFiniteError(f"the gradient is not finite{self._culprits(batches, everything)}")
        return value

    def _culprits(self, batches: Sequence[Batch], affected: Sequence[int]) -> str:
        """On which samples, of whichever process; every process has to call it."""
        run, size = self._run, self._run.config.batch_size
        texts = []
        for part in affected:
            names = ", ".join(batches[part].names[:NAMED_PHOTOS])
            first = run.first_sample(part)
            texts.append(f"samples {first} to {first + size - 1} ({names or 'unnamed'})")
        gathered: list[list[str] | None] = [texts]
        if run.fabric.world_size > 1:
            gathered = [None] * run.fabric.world_size
            dist.all_gather_object(gathered, texts)
        found = [text for own in gathered for text in own or ()]
        return f" on {'; '.join(found)}" if found else ""

    def _undo(self) -> None:
        """Drops the gradients, and the norm statistics that the failed forward pass has left."""
        self._run.optimizer.zero_grad(set_to_none=True)
        self._statistics.restore()

    def _leave_out(self, fault: str) -> dict[str, float]:
        run = self._run
        self._skipped += 1
        if run.config.on_nonfinite == "skip" and self._skipped < run.config.max_skips:
            if run.fabric.is_global_zero:
                logger.warning("step %d skipped (%d in a row): %s", run.step, self._skipped, fault)
            return {}
        again = f", {self._skipped} steps in a row" if run.config.on_nonfinite == "skip" else ""
        raise NonFiniteLossError(
            f"step {run.step}: {fault}{again}; the last checkpoint in {run.folder} is kept. Lower "
            "optimizer.learning_rate, set optimizer.clip_norm, use precision 32-true, or leave out single steps with "
            "on_nonfinite=skip"
        )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says so; on a CPU that is a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or CPU_OUT_OF_MEMORY in str(error)


def memory_advice(run: Run, batches: Sequence[Batch], error: RuntimeError) -> str:
    """The message for a step whose batches do not fit."""
    config = run.config
    phase = config.phases.index(config.phase_at(run.step))
    side = max(batch.images.shape[-1] for batch in batches)
    lower = f"batch_size (and raise accumulate), phases.{phase}.sizes"
    precision = " or use precision bf16-mixed" if config.precision == "32-true" else ""
    return (
        f"step {run.step} (phase {phase}, {config.batch_size} crops of {side} px) ran out of memory on "
        f"{run.fabric.device}: {str(error).partition(chr(10))[0]} Lower {lower}{precision}"
    )


class NormStatistics:
    """A copy of a network's buffers, the running statistics of its norms."""

    def __init__(self, network: nn.Module) -> None:
        self._present: dict[torch.dtype, list[Tensor]] = {}
        for buffer in network.buffers():
            self._present.setdefault(buffer.dtype, []).append(buffer.detach())
        self._kept = {dtype: [buffer.clone() for buffer in buffers] for dtype, buffers in self._present.items()}

    @torch.no_grad()
    def keep(self) -> None:
        """Takes over the present ones."""
        for dtype, buffers in self._present.items():
            torch._foreach_copy_(self._kept[dtype], buffers)

    @torch.no_grad()
    def restore(self) -> None:
        """Gives the network back those that were kept."""
        for dtype, buffers in self._present.items():
            torch._foreach_copy_(buffers, self._kept[dtype])
