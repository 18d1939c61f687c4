"""The program `posesdk-train`: its commands."""

import logging
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from posesdk._version import __version__
from posesdk.terminal import TerminalHandler, reporting, show_line
from posesdk_training.commands.calibrate import calibrate
from posesdk_training.commands.card import card
from posesdk_training.commands.compare import compare
from posesdk_training.commands.count import count
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

__all__ = ["app"]


def recipes() -> None:
    """List the shipped recipes, with the first line of what they say of themselves."""
    with reporting():
        names = recipe_names()
        width = max(map(len, names)) + 2
        for name in names:
            show_line(f"{name:{width}}{recipe_path(name).read_text().partition(chr(10))[0].lstrip('# ')}")


SECTIONS: dict[str, dict[str, tuple[Callable[..., None], str]]] = {
    "Train": {
        "recipes": (recipes, "List what can be trained by name."),
        "fit": (fit, "Train a model, or go on with a run that was stopped."),
        "find-lr": (find_lr, "Find a learning rate: train with a rising one."),
        "widen": (widen, "Start a wider model from a trained narrow one."),
    },
    "Measure": {
        "evaluate": (evaluate, "Measure a checkpoint or a bundle: AP, AR and much besides."),
        "calibrate": (calibrate, "Choose score thresholds on labelled photos."),
        "count": (count, "Count parameters and multiplications of models."),
        "compare": (compare, "Print evaluation reports side by side."),
        "report": (report, "Write the picture page of an earlier evaluation."),
        "sheet": (sheet, "Draw what a model finds in some photos into one picture."),
        "card": (card, "Fill the figures of a model card from reports."),
    },
    "Data": {
        "profile-data": (profile_data, "Measure what loading the data costs."),
        "synthesize": (synthesize, "Make annotated pictures of rendered people."),
        "shard": (shard, "Write a set as WebDataset shards, to be streamed."),
        "pack": (pack, "Pack the photos of a run into a few files to carry away."),
    },
}
"""What a user does first stands first."""


class _Sections(TyperGroup):
    """Commands below the titles of their sections."""

    def format_commands(self, _: Any, formatter: Any) -> None:
        width = max(len(name) for commands in SECTIONS.values() for name in commands)
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, (_, text) in commands.items()])


app = typer.Typer(
    cls=_Sections,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train and evaluate pose models.",
    epilog="Exit codes: 0 ok, 1 failure, 2 usage, 3 missing library or device, 4 bad bundle or checkpoint, "
    "5 a check failed, 6 unreadable source, 130 interrupted, 143 stopped by SIGTERM.",
)


def _version(wanted: bool) -> None:
    if wanted:
        with reporting():
            show_line(f"posesdk {__version__}")
            raise typer.Exit


@app.callback()
def _root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Train and evaluate pose models."""
    logger = logging.getLogger("posesdk_training")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not any(isinstance(handler, TerminalHandler) for handler in logger.handlers):
        logger.addHandler(TerminalHandler())


for _commands in SECTIONS.values():
    for _name, (_function, _text) in _commands.items():
        app.command(_name, short_help=_text)(_function)
