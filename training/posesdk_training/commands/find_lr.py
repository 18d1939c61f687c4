"""The command `posesdk-train find-lr`."""

from pathlib import Path
from typing import Annotated

import typer

from posesdk.terminal import reporting
from posesdk_training.commands.arguments import Accelerator, Config, Overrides, usage_errors
from posesdk_training.settings.recipe import find_recipe

__all__ = ["find_lr"]


def find_lr(
    config: Config,
    set_: Overrides = None,
    steps: Annotated[int, typer.Option(min=20, help="Training steps of the test.")] = 200,
    lowest: Annotated[float, typer.Option("--from", help="The rate to start from.")] = 1e-6,
    highest: Annotated[float, typer.Option("--to", help="The rate to end with.")] = 1.0,
    phase: Annotated[int, typer.Option(min=0, help="The phase whose data and losses to test on.")] = 0,
    accelerator: Accelerator = "auto",
    table: Annotated[Path | None, typer.Option("--csv", help="Write every step to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the curve into this picture: .png or .jpg.")] = None,
) -> None:
    """Find a learning rate: train with a rising one and see where the loss falls and where it diverges."""
    with reporting():
        from rich.console import Console

        from posesdk_training.config import load_config
        from posesdk_training.files import require_folders, require_picture, write_picture
        from posesdk_training.run.log import ProgressBar
        from posesdk_training.trials.lr_finder import range_test, suggest
        from posesdk_training.trials.lr_plot import curve_picture, curve_table, write_csv

        require_folders(table)
        if plot is not None:
            require_picture(plot)
        with usage_errors():
            settings = load_config(find_recipe(config), tuple(set_ or ()))
            with ProgressBar(0, steps, shown=True) as advance:
                test = range_test(
                    settings,
                    steps=steps,
                    lowest=lowest,
                    highest=highest,
                    phase=phase,
                    accelerator=accelerator,
                    on_step=lambda _, loss: advance({"loss": loss}),
                )
        suggestion = suggest(test)
        if table is not None:
            write_csv(test, table)
        if plot is not None:
            write_picture(plot, curve_picture(test, suggestion))
        Console().print(curve_table(test))
        ending = f"the loss diverged at {test.rates[-1]:.1e}" if test.diverged else "the loss did not diverge"
        typer.echo(f"{len(test.losses)} of {steps} steps; {ending}")
        typer.echo(f"steepest descent at {_shown(suggestion.steepest)}; risen again at {_shown(suggestion.risen)}")
        if suggestion.rate is None:
            typer.echo("no suggestion: the loss neither fell nor rose; take more steps, or rates from a wider range")
        else:
            typer.echo(f"suggested: --set optimizer.learning_rate={suggestion.rate:.2g}")


def _shown(rate: float | None) -> str:
    return "no rate" if rate is None else f"{rate:.2g}"
