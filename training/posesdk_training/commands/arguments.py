"""What several commands take as arguments, and how they refuse it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from posesdk.terminal import USAGE, show_error

__all__ = ["Accelerator", "Config", "Device", "Images", "Limit", "Model", "Overrides", "RuntimeName", "usage_errors"]

Config = Annotated[str, typer.Argument(help="A YAML configuration, or the name of a shipped recipe.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override, as section.key=value.")]
Accelerator = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Model = Annotated[Path, typer.Argument(help="A checkpoint (.safetensors), a bundle, or the name of a shipped model.")]
RuntimeName = Annotated[str, typer.Option(help="auto, torch (checkpoints), onnxruntime, openvino, ...")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")]
Images = Annotated[Path, typer.Option(help="Folder of the annotated images.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first images by id.")]


@contextmanager
def usage_errors() -> Iterator[None]:
    """Ends a command with the exit code of wrong usage where its arguments do not fit, which is a ValueError."""
    try:
        yield
    except ValueError as error:
        show_error(error)
        raise typer.Exit(USAGE) from error
