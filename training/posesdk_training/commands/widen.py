"""The command `posesdk-train widen`."""

from pathlib import Path
from typing import Annotated

import typer

from posesdk.terminal import reporting
from posesdk_training.commands.arguments import usage_errors

__all__ = ["widen"]

KEPT_NOTES = frozenset({"training_data", "weights_licence"})
"""What a checkpoint says of its weights that holds for the wider ones too."""


def widen(
    checkpoint: Annotated[Path, typer.Argument(help="A trained checkpoint of an edge model (.safetensors).")],
    model: Annotated[str, typer.Option(help="The wider model: a known name, or a training configuration (YAML).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The wider checkpoint, for `init_from`.")],
    noise: Annotated[
        float, typer.Option(min=0, help="How unevenly copies of a channel are read, below 1; the maps stay.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Seed of what is random.")] = 0,
) -> None:
    """Start a wider model from a trained narrow one: its maps stay the same, up to rounding."""
    with reporting():
        from posesdk_training.checkpoint import load_checkpoint, save_checkpoint
        from posesdk_training.config import load_config
        from posesdk_training.files import require_folders
        from posesdk_training.models.build import preset
        from posesdk_training.models.widen import widen as widened_model

        require_folders(output)
        source = load_checkpoint(checkpoint)
        with usage_errors():
            target = load_config(Path(model)).model if Path(model).is_file() else preset(model)
            widened = widened_model(source, target, noise=noise, seed=seed)
        kept = {key: text for key, text in source.metadata.items() if key in KEPT_NOTES}
        notes = {**kept, "widened_from": source.spec.name}
        save_checkpoint(output, widened.state_dict, widened.spec, metadata=notes)
        if not widened.per_person:
            logocap = target.method == "logocap"
            fresh = "the message passing has another shape and starts" if logocap else "the pose networks start"
            typer.echo(f"{fresh} anew: train them before you use the model", err=True)
        elif source.spec.adaptation.local_size != target.adaptation.local_size:
            typer.echo(
                f"the message passing now sees windows of {target.adaptation.local_size} instead of "
                f"{source.spec.adaptation.local_size} steps: it needs some training",
                err=True,
            )
        typer.echo(str(output))
