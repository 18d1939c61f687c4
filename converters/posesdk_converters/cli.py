"""The `posesdk-convert` command: a checkpoint becomes a bundle."""

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.console import Console

from posesdk.manifest import Precision
from posesdk.terminal import USAGE, TerminalHandler, reporting, show_error, show_line
from posesdk_converters.target import target_names

if TYPE_CHECKING:
    from posesdk_converters.package import Request
    from posesdk_training.checkpoint import Checkpoint

__all__ = ["app", "main"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

PUBLISHED_ONLY = "Only with --from-logocap: "


@app.command()
def convert(
    checkpoint: Annotated[Path | None, typer.Argument(help="A checkpoint of posesdk-train (.safetensors).")] = None,
    *,
    target: Annotated[list[str], typer.Option(help=f"{', '.join(target_names())}; several with commas or repeated.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write (.posebundle).")],
    from_logocap: Annotated[Path | None, typer.Option(help="A published LOGO-CAP checkpoint instead.")] = None,
    short_side: Annotated[
        int | None, typer.Option(min=32, help=PUBLISHED_ONLY + "short side of the input, in px.")
    ] = None,
    global_window: Annotated[
        int | None, typer.Option(min=1, help=PUBLISHED_ONLY + "side of the heatmap window.")
    ] = None,
    gaussian_sigma: Annotated[float | None, typer.Option(min=0.01, help=PUBLISHED_ONLY + "reweighing sigma.")] = None,
    input_size: Annotated[str | None, typer.Option(metavar="HxW", help="Fix the input size; else it is free.")] = None,
    precision: Annotated[str, typer.Option(help="Precisions of the target's variants, with commas.")] = "fp32",
    name: Annotated[str | None, typer.Option(help="Name of the model; else the checkpoint's.")] = None,
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1",
    golden: Annotated[Path | None, typer.Option(help="Picture of the self test; else a rendered one.")] = None,
    accuracy: Annotated[Path | None, typer.Option(help="What posesdk-train evaluate --accuracy wrote.")] = None,
) -> None:
    """Convert a checkpoint into one bundle for the named targets, compared with the torch model."""
    published = {"short_side": short_side, "global_window": global_window, "gaussian_sigma": gaussian_sigma}
    with reporting():
        try:
            source = _load(checkpoint, from_logocap, {key: value for key, value in published.items() if value})
            request = _request(
                source,
                targets=_split(target),
                precisions=_precisions(precision),
                input_size=None if input_size is None else _size(input_size),
                name=name,
                version=version,
                golden=golden,
                accuracy=accuracy,
            )
        except ValueError as error:
            show_error(error)
            raise typer.Exit(USAGE) from error
        _run(source, request, output)


def main() -> None:
    """Entry point of `posesdk-convert`."""
    for package in ("posesdk", "posesdk_runtimes", "posesdk_converters"):
        logging.getLogger(package).addHandler(TerminalHandler(logging.WARNING))
    app(prog_name="posesdk-convert")


def _request(source: "Checkpoint", **wanted: Any) -> "Request":
    from posesdk_converters.package import Request, check_request

    request = Request(**wanted)
    check_request(source.spec, request)
    return request


def _run(source: "Checkpoint", request: "Request", output: Path) -> None:
    from posesdk_converters.package import convert as convert_checkpoint

    console = Console(stderr=True)
    with console.status("starting") as status:
        done = convert_checkpoint(source, request, output, step=lambda text: status.update(f"{text} ..."))
    for parity in done.parities:
        show_line(
            f"{parity.variant} on {parity.runtime}: {parity.within:.2%} of {parity.keypoints} keypoints within 0.05 px "
            f"of torch, largest error {parity.max_px:.2g} px",
            err=True,
        )
    variants = ", ".join(variant.name for variant in done.manifest.variants)
    show_line(f"{done.manifest.id}, version {done.manifest.version}: {variants}", err=True)
    show_line(str(output))


def _load(checkpoint: Path | None, published: Path | None, options: dict[str, int | float]) -> "Checkpoint":
    """The checkpoint, or the published one; loading torch takes seconds, so the arguments are looked at first."""
    if (checkpoint is None) == (published is None):
        raise ValueError("give either a CHECKPOINT or --from-logocap FILE")
    if checkpoint is not None:
        if options:
            raise ValueError(f"--{next(iter(options)).replace('_', '-')} goes with --from-logocap only")
        from posesdk_training.checkpoint import load_checkpoint

        return load_checkpoint(checkpoint)
    from posesdk_converters.importers.logocap import ImportOptions, import_logocap

    window = options.get("global_window", 1)
    if not window % 2:
        raise ValueError(f"--global-window {window}: must be odd, so that the window has a center")
    return import_logocap(cast(Path, published), ImportOptions(**options))  # type: ignore[arg-type]


def _split(values: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))


def _precisions(text: str) -> tuple[Precision, ...]:
    names = _split([text])
    if not names or any(name not in get_args(Precision) for name in names):
        raise ValueError(f"--precision {text}: expected one or more of {', '.join(get_args(Precision))}")
    return cast(tuple[Precision, ...], names)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    if match is None:
        raise ValueError(f"--input-size {text}: expected HEIGHTxWIDTH, such as 256x320")
    return int(match[1]), int(match[2])
