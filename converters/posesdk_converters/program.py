"""The `posesdk-convert` command: a checkpoint becomes a bundle."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.console import Console
from rich.text import Text

from posesdk.manifest import Precision
from posesdk.terminal import USAGE, reporting, show_error, show_line
from posesdk_converters.target import target_names

if TYPE_CHECKING:
    from posesdk_converters.package import Converted
    from posesdk_converters.request import Request
    from posesdk_training.checkpoint import Checkpoint

__all__ = ["app"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

PUBLISHED_ONLY = "Only with --from-logocap: "
COUNT = re.compile(r",? \d+ of \d+")
"""How far a step is."""


@app.command()
def convert(
    source: Annotated[
        str | None,
        typer.Argument(help="A checkpoint of posesdk-train (.safetensors), a bundle, or the name of a shipped model."),
    ] = None,
    *,
    target: Annotated[
        list[str],
        typer.Option(help=f"{', '.join(target_names())}; several with commas; cpu:int8 gives one its own precision."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write (.posebundle).")],
    from_logocap: Annotated[Path | None, typer.Option(help="A published LOGO-CAP checkpoint instead.")] = None,
    short_side: Annotated[
        int | None, typer.Option(min=32, help=PUBLISHED_ONLY + "short side of the input, in px.")
    ] = None,
    global_window: Annotated[
        int | None, typer.Option(min=1, help=PUBLISHED_ONLY + "side of the heatmap window.")
    ] = None,
    gaussian_sigma: Annotated[float | None, typer.Option(min=0.01, help=PUBLISHED_ONLY + "reweighing sigma.")] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="fp32, fp16, bf16, int8; several with commas, or again; else what each target has first."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER|COCO.json", help="Pictures that the ranges of int8 are taken from."),
    ] = None,
    allow_few_images: Annotated[
        bool, typer.Option("--allow-few-images", help="Calibrate with fewer than 100 images.")
    ] = False,
    evaluate: Annotated[
        Path | None, typer.Option(metavar="COCO.json", help="Labelled pictures: the gate is then about AP.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures of --evaluate; else `images` beside it, or beside it.")
    ] = None,
    max_ap_drop: Annotated[float, typer.Option(min=0, help="AP points that a variant may lose.")] = 1.0,
    min_oks: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least mean OKS with the float poses; without labels 0.9 if not given."),
    ] = None,
    max_lost: Annotated[
        float, typer.Option(min=0, help="Part of the people that may sink below the score threshold, or rise.")
    ] = 0.1,
    fused: Annotated[
        bool, typer.Option("--fused", help="For GPUs: also one graph that holds the whole adaptation.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the report goes; else beside the bundle.")
    ] = None,
    input_size: Annotated[str | None, typer.Option(metavar="HxW", help="Fix the input size; else it is free.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; else the checkpoint's.")] = None,
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1",
    golden: Annotated[Path | None, typer.Option(help="Picture of the self test; else a rendered one.")] = None,
    accuracy: Annotated[Path | None, typer.Option(help="What posesdk-train evaluate --accuracy wrote.")] = None,
) -> None:
    """Convert a model into one bundle for the named targets, and prove that every variant is as good as the model."""
    published = {"short_side": short_side, "global_window": global_window, "gaussian_sigma": gaussian_sigma}
    with reporting(torch_extra="convert"):
        from posesdk.verify import Gate

        try:
            model = _load(source, from_logocap, {key: value for key, value in published.items() if value})
            request = _request(
                model,
                targets=_split(target),
                precisions=_precisions(precision) if precision else None,
                input_size=None if input_size is None else _size(input_size),
                name=name,
                version=version,
                golden=golden,
                accuracy=accuracy,
                calibration=calibration,
                few_images=allow_few_images,
                evaluate=evaluate,
                images=images,
                gate=Gate(max_ap_drop, min_oks, max_lost),
                fused=fused,
                report=report,
            )
            done = _run(model, request, output)
        except ValueError as error:
            show_error(error)
            raise typer.Exit(USAGE) from error
        _show(done, output)


def _request(model: "Checkpoint", **wanted: Any) -> "Request":
    from posesdk_converters.request import Request, check_request

    request = Request(**wanted)
    check_request(model.spec, request)
    return request


def _run(model: "Checkpoint", request: "Request", output: Path) -> "Converted":
    from posesdk_converters.package import convert as convert_checkpoint

    with _telling() as step:
        return convert_checkpoint(model, request, output, step=step)


@contextmanager
def _telling() -> Iterator[Callable[[str], None]]:
    """Shows on standard error what is being done: on a terminal with its counts, else one line for each step."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("starting") as status:
            yield lambda text: status.update(Text(f"{text} ..."))
        return
    said: set[str] = set()

    def say(text: str) -> None:
        step = COUNT.sub("", text)
        if step not in said:
            show_line(f"posesdk: {step}", err=True)
        said.add(step)

    yield say


def _show(done: "Converted", output: Path) -> None:
    from posesdk_converters.verification.report import text_table, warnings_of

    for row in text_table(done.record):
        show_line(row, err=True)
    for parity in done.record.parities:
        show_line(
            f"{parity.variant} on {parity.runtime}: {parity.within:.2%} of {parity.keypoints} keypoints within 0.05 px "
            f"of torch, largest error {parity.max_px:.2g} px",
            err=True,
        )
    for one in done.record.judged:
        if one.variant.float_layers:
            show_line(f"{one.variant.name} keeps in float: {', '.join(one.variant.float_layers)}", err=True)
    for line in warnings_of(done.record):
        show_line(f"posesdk: warning: {line}", err=True)
    variants = ", ".join(variant.name for variant in done.manifest.variants)
    show_line(f"{done.manifest.id}, version {done.manifest.version}: {variants}", err=True)
    show_line(f"report: {done.report / 'report.md'}", err=True)
    show_line(str(output))


def _load(source: str | None, published: Path | None, options: dict[str, int | float]) -> "Checkpoint":
    """The source, or the published checkpoint; loading torch takes seconds, so the arguments are looked at first."""
    if (source is None) == (published is None):
        raise ValueError("give either a SOURCE or --from-logocap FILE")
    if source is not None:
        if options:
            raise ValueError(f"--{next(iter(options)).replace('_', '-')} goes with --from-logocap only")
        from posesdk_converters.sources import load_source

        return load_source(source)
    from posesdk_converters.importers.logocap import ImportOptions, import_logocap

    window = options.get("global_window", 1)
    if not window % 2:
        raise ValueError(f"--global-window {window}: must be odd, so that the window has a center")
    return import_logocap(cast(Path, published), ImportOptions(**options))  # type: ignore[arg-type]


def _split(values: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))


def _precisions(values: list[str]) -> tuple[Precision, ...]:
    names = _split(values)
    if not names or any(name not in get_args(Precision) for name in names):
        raise ValueError(f"--precision {','.join(values)}: expected one or more of {', '.join(get_args(Precision))}")
    return cast(tuple[Precision, ...], names)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    if match is None:
        raise ValueError(f"--input-size {text}: expected HEIGHTxWIDTH, such as 256x320")
    return int(match[1]), int(match[2])
