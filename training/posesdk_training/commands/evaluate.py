"""The command `posesdk-train evaluate`."""

from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from posesdk.terminal import reporting, show_line
from posesdk_training.commands.arguments import Device, Images, Limit, Model, RuntimeName, usage_errors

__all__ = ["Adaptation", "Evaluator", "PoseNetworks", "Protocol", "evaluate"]

CASES = 8
"""Pictures of each kind in a report folder."""


LEAST_SCALE, MOST_SCALE = 0.1, 8.0
"""An input below is a few cells, one above does not fit into memory."""


class Adaptation(str, Enum):
    """Adaptation levels that an evaluation can ask for."""

    FULL = "full"
    PARTIAL = "partial"
    NONE = "none"


class PoseNetworks(str, Enum):
    """Up to which of DAC's networks an evaluation can go."""

    NONE = "none"
    CONFIDENCE = "confidence"
    SIMILARITY = "similarity"
    ALL = "all"


class Protocol(str, Enum):
    """Protocols of keypoint evaluation."""

    COCO = "coco"
    CROWDPOSE = "crowdpose"
    OCHUMAN = "ochuman"


class Evaluator(str, Enum):
    """Implementations of the COCO evaluation."""

    PYCOCOTOOLS = "pycocotools"
    FASTER = "faster"


def evaluate(
    # what is measured
    model: Model,
    annotations: Annotated[Path, typer.Option(help="Keypoint annotations in COCO format.")],
    images: Images,
    no_people: Annotated[
        Path | None, typer.Option(help="Folder of pictures without people: count what is found.")
    ] = None,
    limit: Limit = None,
    # what runs it
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, or a precision that the bundle has: fp32, int8, ...")] = "auto",
    # how it is run
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Average with the mirror image.")] = None,
    adaptation: Annotated[Adaptation | None, typer.Option(help="The model's own, unless given.")] = None,
    pose_nets: Annotated[
        PoseNetworks | None, typer.Option(help="DAC's networks up to this one, as in its Table 6; the model's own.")
    ] = None,
    scales: Annotated[
        str, typer.Option(metavar="LIST", help="Input sizes in parts of the model's own, as 0.5,1,1.5,2.")
    ] = "1",
    min_score: Annotated[float | None, typer.Option(min=0, max=1, help="Lowest score of a person; 0.01.")] = None,
    # which figures
    protocol: Annotated[Protocol | None, typer.Option(help="Seen from the annotations, unless given.")] = None,
    oracle_window: Annotated[
        int | None, typer.Option(min=1, help="Upper bound of the initial poses in a window of n x n places; 11.")
    ] = None,
    backend: Annotated[Evaluator, typer.Option(help="faster: faster-coco-eval, in C++.")] = Evaluator.PYCOCOTOOLS,
    # where they go
    output: Annotated[Path | None, typer.Option("--json", help="Write figures and conditions to this file.")] = None,
    accuracy: Annotated[Path | None, typer.Option(help="Write the entry for `posesdk-convert --accuracy`.")] = None,
    results: Annotated[Path | None, typer.Option(help="Write the COCO results to this file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write Markdown and a picture page into this folder.")] = None,
) -> None:
    """Measure keypoint AP and AR of a checkpoint or a bundle on a COCO, CrowdPose or OCHuman file, and much besides."""
    with reporting(), ExitStack() as stack:
        from posesdk_training.evaluated_model import Level, PoseNets, open_model
        from posesdk_training.evaluation.accuracy_report import manifest_entry, show_report
        from posesdk_training.evaluation.measure import Measurement, measure
        from posesdk_training.files import require_files, require_folder, require_folders, write_json

        require_files({"--annotations": annotations})
        require_folders(output, accuracy, results)
        require_folder(report)
        level: Level | None = None if adaptation is None else adaptation.value
        nets: PoseNets | None = None if pose_nets is None else pose_nets.value
        what = Measurement(
            protocol=None if protocol is None else protocol.value,
            backend=backend.value,
            limit=limit,
            min_score=min_score,
            no_people=no_people,
            oracle_window=oracle_window,
        )
        settings = {"runtime": runtime, "device": device, "precision": precision}
        with usage_errors():
            sizes = _numbers(scales)
            what.check(sizes)
            evaluated = stack.enter_context(
                open_model(model, **settings, flip_test=flip, adaptation=level, pose_nets=nets, scales=sizes)
            )
        measured, found = measure(evaluated, annotations, images, what)
        show_report(measured)
        for path, content in ((output, measured), (accuracy, manifest_entry(measured)), (results, found)):
            if path is not None:
                write_json(path, content)
        if report is not None:
            from posesdk_training.report.folder import measured_evaluation, show_writing

            evaluation = measured_evaluation(measured, found, annotations, images, evaluated.spec)
            show_line(str(show_writing(evaluation, report, CASES)))


def _numbers(text: str) -> tuple[float, ...]:
    """Sizes from a list with commas or blanks."""
    try:
        sizes = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(f"--scales: expected numbers as in 0.5,1,1.5,2, got {text!r}") from error
    if not sizes or not all(LEAST_SCALE <= size <= MOST_SCALE for size in sizes):
        raise ValueError(f"--scales: expected sizes from {LEAST_SCALE:g} to {MOST_SCALE:g}, got {text!r}")
    return sizes
