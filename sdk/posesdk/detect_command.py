"""`posesdk detect`: what its options mean together."""

import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import typer

from posesdk.batch import Batch
from posesdk.detector import Detector
from posesdk.drawing import Drawing, target_kind
from posesdk.outputs import STDOUT, CocoOutput, JsonLinesOutput, JsonOutput, Output, open_text
from posesdk.poses import Poses
from posesdk.profile import Profile
from posesdk.progress import progress_bar
from posesdk.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, open_source
from posesdk.terminal import show_error, show_line
from posesdk.video import Frame, FrameStream
from posesdk.window import Window
from posesdk_runtimes.errors import SourceError

__all__ = ["Wanted", "check_outputs", "run_detect"]

KINDS: dict[str, type[JsonOutput | JsonLinesOutput | CocoOutput]] = {
    "json": JsonOutput,
    "jsonl": JsonLinesOutput,
    "coco": CocoOutput,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The outputs that were asked for; the path of a text may be "-"."""

    texts: dict[str, Path]
    draw: Path | None = None
    show: bool = False
    profile: bool = False

    @property
    def uses_stdout(self) -> bool:
        """Whether data goes to standard output, where nothing else may then be written."""
        return STDOUT in self.texts.values()


class _Summary:
    """A line for each frame, for those who asked for nothing else."""

    def add(self, stream: FrameStream, frame: Frame, poses: Poses, everyone: Poses) -> None:
        info, count = frame.info, len(poses)
        place = info.source or stream.name
        if not stream.pictures:
            place += f" frame {info.index}" if info.pts is None else f" at {info.pts:.2f} s"
        scores = " (" + ", ".join(f"{score:.2f}" for score in poses.scores) + ")" if count else ""
        people = "1 person" if count == 1 else f"{count} people"
        show_line(f"{place}: {people}{scores}, {sum(poses.timing.values()):.0f} ms")

    def close(self) -> None:
        """Nothing is left to write."""


class _Timing:
    """The times of all frames."""

    def __init__(self) -> None:
        self.profile = Profile()

    def add(self, stream: FrameStream, frame: Frame, poses: Poses, everyone: Poses) -> None:
        self.profile.add(poses)

    def close(self) -> None:
        """Nothing is left to write."""


def check_outputs(sources: list[str], wanted: Wanted) -> None:
    """Raises BadParameter for outputs that exclude each other, or that cannot hold what the sources give."""
    if list(wanted.texts.values()).count(STDOUT) > 1:
        raise typer.BadParameter("only one of --json, --jsonl and --coco can go to standard output")
    _check_files(sources, wanted)
    if wanted.draw is None:
        return
    drawing = target_kind(wanted.draw)
    if drawing == "folder":
        _check_folder(sources, wanted.draw)
        return
    if len(sources) > 1:
        raise typer.BadParameter(
            f"{wanted.draw} holds the frames of one source, and there are {len(sources)}; name a folder"
        )
    if drawing == "video":
        return
    try:
        with open_source(sources[0], _ignore) as stream:
            count = stream.count
    except SourceError:
        return  # told when it is its turn
    if count != 1:
        raise typer.BadParameter(
            f"{wanted.draw} holds one picture, and {sources[0]} gives more; name a folder or a video"
        )


def _check_files(sources: list[str], wanted: Wanted) -> None:
    """Nobody's picture may be replaced by text, nor one output by another."""
    files = {f"--{kind}": path for kind, path in wanted.texts.items() if path != STDOUT}
    for option, path in files.items():
        if path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
            raise typer.BadParameter(f"{option} writes text, and {path} is the name of a picture or video")
        if any(os.path.exists(source) and os.path.exists(path) and path.samefile(source) for source in sources):
            raise typer.BadParameter(f"{option} would replace the source {path}; name another file")
    places = [*files.values()] if wanted.draw is None else [*files.values(), wanted.draw]
    if len({path.resolve() for path in places}) < len(places):
        raise typer.BadParameter("two outputs have the same name; name a file for each")


def _check_folder(sources: list[str], target: Path) -> None:
    """A drawn picture has the name of its source, and may have that of another source."""
    homes = [source if os.path.isdir(source) else os.path.dirname(source) or "." for source in sources]
    if os.path.isdir(target) and any(os.path.isdir(home) and target.samefile(home) for home in homes):
        raise typer.BadParameter(f"{target} is the folder of a source, which would be replaced; name another one")


def run_detect(detector: Detector, sources: list[str], wanted: Wanted) -> int:
    """Does the work; gives the exit code. Faults of sources are told as they come, other errors are raised."""
    timing = _Timing()
    batch: Batch | None = None
    try:
        with ExitStack() as stack:
            outputs, stop = _open_outputs(wanted, stack)
            batch = Batch(detector, [*outputs, timing], show_error, everyone="coco" in wanted.texts)
            watch = stack.enter_context(progress_bar(len(sources), data_on_stdout=wanted.uses_stdout))
            batch.run(sources, watch, stop)
    except KeyboardInterrupt:
        if batch is not None:
            _conclude(batch, timing.profile, detector, wanted)
        raise
    _conclude(batch, timing.profile, detector, wanted)
    return SourceError.exit_code if batch.faults else 0


def _conclude(batch: Batch, profile: Profile, detector: Detector, wanted: Wanted) -> None:
    if wanted.profile:
        _show_profile(profile, detector)
    if batch.frames and not wanted.uses_stdout and (wanted.texts or wanted.draw):
        places = ", ".join(str(path) for path in (*wanted.texts.values(), wanted.draw) if path is not None)
        show_line(f"{batch.frames} {'frame' if batch.frames == 1 else 'frames'} written to {places}")
    if batch.faults and batch.pictures + batch.faults > 1 and batch.pictures:
        show_error(f"{batch.faults} of {batch.pictures + batch.faults} inputs could not be read")


def _open_outputs(wanted: Wanted, stack: ExitStack) -> tuple[list[Output], Callable[[], bool] | None]:
    outputs: list[Output] = []
    stop = None
    for name, path in wanted.texts.items():
        file = stack.enter_context(open_text(path))
        outputs.append(stack.enter_context(closing(KINDS[name](file, path))))
    if wanted.draw is not None:
        outputs.append(stack.enter_context(closing(Drawing(wanted.draw))))
    if wanted.show:
        window = stack.enter_context(closing(Window()))
        outputs.append(window)
        stop = window.is_closed
    return outputs or [_Summary()], stop


def _show_profile(profile: Profile, detector: Detector) -> None:
    from rich.console import Console
    from rich.table import Table

    info = detector.info
    show_line(
        f"{info.model} {info.variant} with {info.runtime} on {info.device}: {profile.frames} frames that count, "
        f"{profile.people:.1f} people in each on average",
        err=True,
    )
    table = Table("stage")
    for heading in ("median ms", "p95 ms"):
        table.add_column(heading, justify="right")
    for stage in profile.stages():
        table.add_row(stage.stage, f"{stage.median:.2f}", f"{stage.p95:.2f}")
    Console(stderr=True).print(table)


def _ignore(fault: SourceError) -> None:
    """It will be told when the source is read."""
