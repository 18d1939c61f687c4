"""The command `posesdk-train count`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posesdk.terminal import reporting, show_line
from posesdk_training.commands.arguments import usage_errors

if TYPE_CHECKING:
    from posesdk_training.models.cost import ModelCost

__all__ = ["count"]

COLUMNS = ("model", "input", "parameters", "in training", "GMAC/image", "MMAC/pose", "GMAC at most")
NOTE = (
    "parameters in millions, in training with the stems of all branches; MMAC/pose: all networks that look at a pose; "
    "GMAC at most: image and as many poses as are ever looked at"
)


def count(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Known names, or configurations (YAML); or all.")
    ] = None,
) -> None:
    """Print what models cost: parameters, and multiplications an image at their input and a pose."""
    with reporting():
        from posesdk_training.config import load_config
        from posesdk_training.models.build import PRESETS, preset
        from posesdk_training.models.cost import model_cost

        with usage_errors():
            specs = [
                load_config(Path(name)).model if Path(name).is_file() else preset(name) for name in models or PRESETS
            ]
        rows = [COLUMNS, *((spec.name, *_figures(model_cost(spec))) for spec in specs)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for name, *figures in rows:
            texts = [
                name.ljust(widths[0]),
                *(text.rjust(width) for text, width in zip(figures, widths[1:], strict=True)),
            ]
            show_line("  ".join(texts))
        typer.echo(NOTE, err=True)


def _figures(cost: "ModelCost") -> tuple[str, ...]:
    height, width = cost.input_size
    return (
        f"{width}x{height}",
        f"{cost.parameters / 1e6:.3f}",
        f"{cost.training_parameters / 1e6:.3f}",
        f"{cost.trunk_gmac:.3f}",
        f"{cost.pose_gmac * 1e3:.2f}",
        f"{cost.image_gmac:.3f}",
    )
