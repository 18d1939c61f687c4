"""The command `posesdk-train fit`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posesdk.terminal import reporting, show_line
from posesdk_training.commands.arguments import Accelerator, Config, Overrides, usage_errors
from posesdk_training.settings.recipe import find_recipe

if TYPE_CHECKING:
    from posesdk_training.config import TrainConfig

__all__ = ["fit"]

SIGNAL_BASE = 128
"""What a shell adds to the number of the signal that ended a program."""


def fit(
    config: Config,
    set_: Overrides = None,
    run: Annotated[Path | None, typer.Option(help="Run folder; an interrupted run in it is resumed.")] = None,
    accelerator: Accelerator = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Devices (processes) per node.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes, with torchrun.")] = 1,
    stop_after: Annotated[int | None, typer.Option(min=1, help="Stop at this step, to be resumed later.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Stop after so long, to be resumed later.")] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Show data, memory and time; train nothing.")] = False,
) -> None:
    """Train a model; a run that was stopped goes on where its last checkpoint stands."""
    with reporting():
        from lightning.fabric.utilities.rank_zero import rank_zero_only

        from posesdk_training.config import load_config
        from posesdk_training.run.interruption import RunInterrupted
        from posesdk_training.train import fit as fit_model

        with usage_errors():
            settings = load_config(find_recipe(config), tuple(set_ or ()))
        folder = run or Path("runs") / settings.name
        if dry:
            _look_ahead(settings, folder, accelerator)
            return
        try:
            weights = fit_model(
                settings,
                folder,
                accelerator=accelerator,
                devices=devices,
                nodes=nodes,
                stop_after=stop_after,
                max_minutes=max_minutes,
            )
        except RunInterrupted as stop:  # exits as a shell has it
            if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                show_line(f"posesdk: {stop}", err=True)
            raise typer.Exit(SIGNAL_BASE + stop.signal) from stop
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            typer.echo(str(weights))


def _look_ahead(config: "TrainConfig", folder: Path, accelerator: str) -> None:
    from posesdk_training.progress import progress
    from posesdk_training.trials.dry_run import dry_run
    from posesdk_training.trials.dry_run_report import show_dry_run

    parts = len(config.data.sets) + sum(len(phase.sizes) for phase in config.phases)
    with progress("measuring", parts) as advance:
        found = dry_run(config, folder, accelerator=accelerator, on_part=advance)
    show_dry_run(found, config, folder)
