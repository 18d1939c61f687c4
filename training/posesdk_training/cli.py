"""The `posesdk-train` command."""

import logging
from typing import Annotated

import typer

from posesdk.terminal import TerminalHandler
from posesdk_training.commands.calibrate import calibrate
from posesdk_training.commands.card import card
from posesdk_training.commands.compare import compare
from posesdk_training.commands.evaluate import evaluate
from posesdk_training.commands.find_lr import find_lr
from posesdk_training.commands.fit import fit
from posesdk_training.commands.pack import pack
from posesdk_training.commands.profile_data import profile_data
from posesdk_training.commands.report import report
from posesdk_training.commands.shard import shard
from posesdk_training.commands.sheet import sheet
from posesdk_training.commands.synthesize import synthesize
from posesdk_training.commands.widen import widen
from posesdk_training.settings.recipe import recipe_names, recipe_path

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


app.command()(fit)
app.command()(find_lr)
app.command()(evaluate)
app.command()(calibrate)
app.command()(report)
app.command()(compare)
app.command()(card)
app.command()(sheet)
app.command()(pack)
app.command()(profile_data)
app.command()(shard)
app.command()(synthesize)
app.command()(widen)


@app.command()
def recipes() -> None:
    """List the shipped recipes, with the first line of what they say of themselves."""
    for name in recipe_names():
        typer.echo(f"{name:20}{recipe_path(name).read_text().partition(chr(10))[0].lstrip('# ')}")


def main() -> None:
    """Entry point of `posesdk-train`."""
    app(prog_name="posesdk-train")
