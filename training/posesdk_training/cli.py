"""The `posesdk-train` command."""

import logging
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from posesdk.terminal import USAGE, TerminalHandler, reporting, show_error
from posesdk_runtimes.errors import DataError
from posesdk_training.calibrate_command import calibrate
from posesdk_training.evaluate_command import evaluate
from posesdk_training.widen_command import widen

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train and evaluate pose models.",
)


@app.callback()
def _root(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False) -> None:
    """Train and evaluate pose models."""
    logger = logging.getLogger("posesdk_training")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not any(isinstance(handler, TerminalHandler) for handler in logger.handlers):
        logger.addHandler(TerminalHandler())


@app.command()
def fit(
    config: Annotated[str, typer.Argument(help="A YAML configuration, or the name of a shipped recipe.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override, as section.key=value.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder; an interrupted run in it is resumed.")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Devices (processes) per node.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes, with torchrun.")] = 1,
    stop_after: Annotated[int | None, typer.Option(min=1, help="Stop at this step, to be resumed later.")] = None,
) -> None:
    """Train a model; a run that was stopped goes on where its last checkpoint stands."""
    with reporting():
        from lightning.fabric.utilities.rank_zero import rank_zero_only

        from posesdk_training.config import load_config
        from posesdk_training.train import fit as fit_model

        try:
            settings = load_config(_recipe(config), tuple(set_ or ()))
        except ValueError as error:  # an override that is none
            show_error(error)
            raise typer.Exit(USAGE) from error
        folder = run or Path("runs") / settings.name
        weights = fit_model(
            settings, folder, accelerator=accelerator, devices=devices, nodes=nodes, stop_after=stop_after
        )
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            typer.echo(str(weights))


app.command()(evaluate)
app.command()(calibrate)
app.command()(widen)


@app.command()
def recipes() -> None:
    """List the shipped recipes, with the first line of what they say of themselves."""
    for name in _shipped():
        typer.echo(f"{name:16}{_recipe_path(name).read_text().partition(chr(10))[0].lstrip('# ')}")


def _shipped() -> list[str]:
    folder = resources.files("posesdk_training") / "recipes"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _recipe_path(name: str) -> Path:
    return Path(str(resources.files("posesdk_training") / "recipes" / f"{name}.yaml"))


def _recipe(name: str) -> Path:
    """A configuration file, or a shipped recipe by its name."""
    path = Path(name)
    if path.exists():
        return path
    if name in _shipped():
        return _recipe_path(name)
    raise DataError(
        f"no training configuration {name!r}: neither a file nor one of the recipes {', '.join(_shipped())}"
    )


def main() -> None:
    """Entry point of `posesdk-train`."""
    app(prog_name="posesdk-train")
