"""The arguments of `posesdk benchmark`."""

from pathlib import Path
from typing import Annotated

import typer

from posesdk.arguments import MOST_THREADS
from posesdk.terminal import USAGE, reporting, show_error

__all__ = ["benchmark"]

MOST_PEOPLE, MOST_TOGETHER = 1000, 256
"""That may be asked for at once: beyond them memory ends before anything is learnt."""
MOST_SECONDS = 86400
"""A day."""
AGAIN = "several with commas, or the option again"


def benchmark(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(metavar="BUNDLE", help="Bundles, or names of shipped models; the default one if none."),
    ] = None,
    *,
    runtime: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,...", help=f"Backends instead of all that are installed; {AGAIN}."),
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(metavar="NAME,...", help=f"auto, cpu, cuda, cuda:N, gpu, npu; {AGAIN}.")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,...", help=f"fp32, fp16, int8, ... instead of all; {AGAIN}."),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,...", help=f"Variants, as `posesdk info` lists them, instead of all; {AGAIN}."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=MOST_THREADS, help="Threads of the backends.")] = None,
    cpus: Annotated[
        list[str] | None, typer.Option(metavar="N,...", help="Processors to stay on: 0,1 or 0-3,6.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|FOLDER", help="Pictures or a video; else the bundle's own picture."),
    ] = None,
    people: Annotated[
        list[str] | None, typer.Option(metavar="N,...", help="Also with so many people planted: 1,5,10.")
    ] = None,
    batch: Annotated[
        list[str] | None, typer.Option(metavar="N,...", help="Also in batches of so many frames: 1,4.")
    ] = None,
    sustained: Annotated[
        str | None, typer.Option(metavar="TIME", help="Also for so long without a break: 30s, 10m, 1h.")
    ] = None,
    evaluate: Annotated[
        Path | None, typer.Option(metavar="COCO.json", readable=False, help="Measure AP on these labels.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="FOLDER", readable=False, help="The pictures of COCO.json.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pictures of COCO.json.")] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=MOST_SECONDS, help="Of latency measurement, for each entry.")
    ] = 5.0,
    rounds: Annotated[int | None, typer.Option(min=1, help="Exactly so many rounds of latency instead.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE|-", readable=False, help="All figures as JSON.")] = None,
) -> None:
    """Measure every variant that runs here, in turns: latency by stage, frames a second, memory, start-up, accuracy."""
    with reporting():
        from posesdk.benchmark.accuracy import Labelled
        from posesdk.benchmark.command import BenchmarkRequest, run_benchmark
        from posesdk.benchmark.entries import Selection
        from posesdk.benchmark.options import parse_counts, parse_cpus, parse_names, parse_sustained
        from posesdk.benchmark.rounds import Budget

        try:
            if evaluate is None and (images is not None or limit is not None):
                raise ValueError("--images and --limit say which pictures --evaluate takes; give it the labels")
            if source is not None and len(source) > 1:
                raise ValueError("one --source is measured with; a folder or a glob in quotes names several pictures")
            kinds = {"runtime": runtime, "device": device, "precision": precision, "variant": variant}
            names = {kind: parse_names(values, f"--{kind}") for kind, values in kinds.items()}
            run_benchmark(
                BenchmarkRequest(
                    tuple(bundles or ()),
                    Selection(**names, threads=threads),
                    source=source[0] if source else None,
                    people=parse_counts(people, "--people", 0, MOST_PEOPLE),
                    batch=parse_counts(batch, "--batch", 1, MOST_TOGETHER),
                    sustained=parse_sustained(sustained),
                    labelled=None if evaluate is None else Labelled(evaluate, images, limit),
                    budget=Budget(seconds, rounds),
                    cpus=parse_cpus(cpus),
                    output=json,
                )
            )
        except ValueError as error:  # a name that does not exist, or that no bundle has
            show_error(error)
            raise typer.Exit(USAGE) from error
