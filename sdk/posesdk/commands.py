"""The subcommands of `posesdk`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posesdk._version import __version__
from posesdk.arguments import MOST_THREADS
from posesdk.benchmark.cli import benchmark
from posesdk.gst.command import app as gst_app
from posesdk.terminal import USAGE, reporting, show_error, show_line, show_text
from posesdk_runtimes.errors import EnvironmentFault, GateError

if TYPE_CHECKING:
    from posesdk.detector import Detector

__all__ = ["app"]

app = typer.Typer(
    name="posesdk",
    help="Finds people and their keypoints in images and videos.",
    epilog="Exit codes: 0 ok, 1 failure, 2 usage, 3 missing library or device, 4 bad bundle, 5 a gate failed, "
    "6 unreadable source, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes cut option names short on a terminal of 80 columns, and break errors into lines
)

app.add_typer(gst_app)


def _version(wanted: bool) -> None:
    if wanted:
        with reporting():
            show_line(f"posesdk {__version__}")
            raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Finds people and their keypoints in images and videos."""


@app.command()
def detect(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE", help="Images, videos, folders, globs, camera numbers, URLs.")
    ],
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Shipped model or bundle to use instead of the default model."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, gpu, npu.")] = "auto",
    runtime: Annotated[str, typer.Option(help="auto, or the backend: onnxruntime, openvino, ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, or the variant's: fp32, fp16, int8, ...")] = "auto",
    variant: Annotated[str, typer.Option(help="auto, or one by its name, as `posesdk info` lists them.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, max=MOST_THREADS, help="Threads of the backend.")] = None,
    score_threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Lowest score of a person.")] = None,
    keypoint_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score of a keypoint that is drawn.")
    ] = None,
    max_people: Annotated[int, typer.Option(min=1, help="Most people in a frame.")] = 30,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Average with the mirror image: better, half as fast.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE|-", readable=False, help="All frames as one JSON object.")
    ] = None,
    jsonl: Annotated[
        Path | None, typer.Option(metavar="FILE|-", readable=False, help="One JSON object a line for each frame.")
    ] = None,
    coco: Annotated[
        Path | None, typer.Option(metavar="FILE|-", readable=False, help="COCO keypoint results, for an evaluation.")
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="DIR|FILE", readable=False, help="Drawn pictures and videos: a folder, or one file."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show drawn frames in a window; q ends.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Print the time of each stage to standard error.")] = False,
) -> None:
    """Find people in sources and print, write, draw or show them."""
    with reporting():
        from posesdk.detect_command import Wanted, check_outputs, run_detect

        named = {"json": json, "jsonl": jsonl, "coco": coco}
        wanted = Wanted({kind: path for kind, path in named.items() if path is not None}, draw, show, profile)
        check_outputs(sources, wanted)
        detector = _open_detector(
            model,
            device=device,
            runtime=runtime,
            precision=precision,
            variant=variant,
            threads=threads,
            score_threshold=score_threshold,
            keypoint_threshold=keypoint_threshold,
            max_people=max_people,
            flip_test=flip,
        )
        with detector:
            code = run_detect(detector, sources, wanted)
        raise typer.Exit(code)


@app.command(short_help="Tell what a bundle holds and how good it is.")
def info(
    bundle: Annotated[
        str | None, typer.Argument(help="A bundle, or the name of a shipped model; the default one if none is named.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the manifest as it is.")] = False,
) -> None:
    """Tell what a bundle holds, how good it is and under which licences it stands."""
    with reporting():
        from posesdk.bundle import open_bundle
        from posesdk.info import describe
        from posesdk.manifest import dump_manifest
        from posesdk.shipped import find_bundle

        opened = open_bundle(find_bundle(bundle))
        if json:
            show_text(dump_manifest(opened.manifest).decode())
            return
        for line in describe(opened):
            show_line(line)


@app.command(short_help="Run a bundle's golden image through every backend here.")
def selftest(
    bundle: Annotated[
        str | None, typer.Argument(help="A bundle, or the name of a shipped model; the default one if none is named.")
    ] = None,
) -> None:
    """Run a bundle's golden image through every backend that is installed here."""
    with reporting():
        from posesdk.bundle import open_bundle
        from posesdk.selftest import run_selftest
        from posesdk.shipped import find_bundle

        checks = run_selftest(open_bundle(find_bundle(bundle)))
        for check in checks:
            show_line(check.summary)
        failed = [check for check in checks if not check.skipped and not check.passed]
        if failed:
            raise GateError(
                f"{len(failed)} of {len(checks)} checks failed: use another runtime or precision, and report this model"
            )


@app.command(short_help="Compare every variant with the float model on your pictures.")
def verify(
    bundle: Annotated[
        str | None, typer.Argument(help="A bundle, or the name of a shipped model; the default one if none is named.")
    ] = None,
    *,
    data: Annotated[
        Path, typer.Option(metavar="COCO.json|FOLDER", readable=False, help="Pictures, with labels for AP.")
    ],
    images: Annotated[
        Path | None, typer.Option(metavar="FOLDER", readable=False, help="The pictures of COCO.json.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pictures.")] = None,
    max_ap_drop: Annotated[float, typer.Option(min=0, help="AP points that a variant may lose.")] = 1.0,
    min_oks: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Mean OKS with the float poses; 0.9 where there are no labels."),
    ] = None,
    max_lost: Annotated[
        float, typer.Option(min=0, help="Part of the people that may sink below the score threshold, or rise.")
    ] = 0.1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, gpu, npu.")] = "auto",
    runtime: Annotated[str, typer.Option(help="auto, or the backend: onnxruntime, openvino, ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, or the variant's: fp32, fp16, int8, ...")] = "auto",
    variant: Annotated[str, typer.Option(help="auto, or one by its name, as `posesdk info` lists them.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, max=MOST_THREADS, help="Threads of the backends.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE|-", readable=False, help="All figures as JSON.")] = None,
) -> None:
    """Compare every variant with the bundle's float model on pictures: poses, accuracy and speed on this device."""
    with reporting():
        from posesdk.bundle import open_bundle
        from posesdk.labelled_pictures import read_pictures
        from posesdk.shipped import find_bundle
        from posesdk.variants import select_variant
        from posesdk.verify import Gate
        from posesdk.verify_command import VerifyRequest, check_report_path, run_verify

        check_report_path(json)
        opened = open_bundle(find_bundle(bundle))
        try:
            candidates = select_variant(opened.manifest, runtime, device, precision, variant=variant)
        except ValueError as error:  # a name that does not exist, or that this bundle does not have
            show_error(error)
            raise typer.Exit(USAGE) from error
        pictures = read_pictures(data, opened.spec.skeleton, images=images, limit=limit)
        run_verify(VerifyRequest(opened, candidates, pictures, Gate(max_ap_drop, min_oks, max_lost), json, threads))


app.command(short_help="Measure the speed of bundles here, beside their accuracy.")(benchmark)


@app.command(short_help="Build a bundle's TensorRT engines ahead of time.")
def prepare(
    bundle: Annotated[
        str | None, typer.Argument(help="A bundle, or the name of a shipped model; the default one if none is named.")
    ] = None,
    device: Annotated[str, typer.Option(help="cuda, cuda:N.")] = "cuda:0",
    precision: Annotated[str, typer.Option(help="auto, or the variant's: fp32, fp16, int8.")] = "auto",
    variant: Annotated[str, typer.Option(help="auto, or one by its name, as `posesdk info` lists them.")] = "auto",
    workspace: Annotated[int | None, typer.Option(metavar="MIB", min=1, help="Most scratch memory of a layer.")] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="Longest time for one engine.")] = 3600,
    prune: Annotated[bool, typer.Option("--prune", help="Remove outdated engines of the same graphs.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Build the engines that TensorRT runs a bundle with, so that its first start takes seconds."""
    with reporting():
        from posesdk.bundle import open_bundle
        from posesdk.prepare_command import Settings, run_prepare
        from posesdk.shipped import find_bundle

        opened = open_bundle(find_bundle(bundle))
        try:
            run_prepare(opened, Settings(device, precision, variant, workspace, timeout, prune, json))
        except ValueError as error:  # a name that does not exist, or that this bundle does not have
            show_error(error)
            raise typer.Exit(USAGE) from error


@app.command(short_help="Write what an app needs to run a mobile bundle.")
def handover(
    bundle: Annotated[str, typer.Argument(help="A bundle of --target mobile.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", readable=False, help="A new or empty folder.")
    ],
    precision: Annotated[str, typer.Option(help="auto, or the variant's: fp32, fp16, int8.")] = "auto",
) -> None:
    """Write the files, the decoder's description and its golden tensors for an app in another language."""
    with reporting():
        from posesdk.bundle import open_bundle
        from posesdk.handover import write_handover
        from posesdk.shipped import find_bundle

        try:
            written = write_handover(open_bundle(find_bundle(bundle)), output, precision=precision)
        except ValueError as error:  # nothing for mobile, or not in that precision
            show_error(error)
            raise typer.Exit(USAGE) from error
        show_line(f"wrote {written}; begin with {written / 'DECODER.md'}")


@app.command(short_help="Say what is installed here, and what to do about the rest.")
def doctor() -> None:
    """Look at what is installed, which devices there are, and say what to do about what is missing."""
    with reporting():
        from posesdk.doctor import examine

        broken = []
        for finding in examine():
            show_line(f"{finding.state:8}{finding.name}: {finding.detail}")
            if finding.advice:
                show_line(f"{'':8}-> {finding.advice}")
            if finding.state == "broken":
                broken.append(finding.name)
        if broken:
            raise EnvironmentFault(f"posesdk cannot work here: {', '.join(broken)} broken; do what is advised above")


def _open_detector(model: str | None, **settings: object) -> "Detector":
    from posesdk.detector import Detector

    try:
        return Detector(model, **settings)  # type: ignore[arg-type]
    except ValueError as error:  # a name that does not exist, or that this bundle does not have
        show_error(error)
        raise typer.Exit(USAGE) from error
