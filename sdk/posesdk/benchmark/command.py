"""`posesdk benchmark`: what its options mean together, and the order of the work."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk.benchmark.accuracy import Labelled, measured_accuracy, recorded_accuracy
from posesdk.benchmark.batches import BatchTimes
from posesdk.benchmark.conditions import condition_lines, conditions_of
from posesdk.benchmark.entries import Entry, LeftOut, Selection, find_entries
from posesdk.benchmark.frames import golden_frames, read_frames
from posesdk.benchmark.latency import frame_work
from posesdk.benchmark.machine import Load, pin
from posesdk.benchmark.people import PeopleTimes
from posesdk.benchmark.report import Results, report_dict, report_tables
from posesdk.benchmark.rounds import PERCENT, Budget, Rounds
from posesdk.benchmark.startup import RUNS, measure_fresh
from posesdk.benchmark.tables import show_table
from posesdk.benchmark.throughput import SLICES, TENTHS, Rates, Sustained
from posesdk.bundle import Bundle, default_bundle_path, open_bundle
from posesdk.detector import Detector
from posesdk.labelled_pictures import PictureFiles
from posesdk.outputs import STDOUT
from posesdk.progress import counting
from posesdk.shipped import CHECKPOINT_SUFFIX, find_bundle
from posesdk.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from posesdk.terminal import show_line
from posesdk.verify_command import check_report_path, write_report
from posesdk_runtimes.errors import EnvironmentFault, RuntimeFault

__all__ = ["BenchmarkRequest", "run_benchmark"]

WARM_UP = 20
"""Frames before any that counts: in them the backends get ready for the size, OpenVINO only once it has come often."""
DEFAULT_BUDGET = Budget(5.0)
STREAMED = 0.5
"""Seconds of streaming for each second of single frames."""


@dataclass(frozen=True, slots=True)
class BenchmarkRequest:
    """What is measured; `sustained` in seconds, `output` None for no JSON and "-" for standard output."""

    bundles: tuple[str, ...]
    selection: Selection
    source: str | None = None
    people: tuple[int, ...] = ()
    batch: tuple[int, ...] = ()
    sustained: float | None = None
    labelled: Labelled | None = None
    budget: Budget = DEFAULT_BUDGET
    cpus: tuple[int, ...] = ()
    output: Path | None = None


def run_benchmark(request: BenchmarkRequest) -> None:
    """Measures and shows; an interrupted run shows what it has before KeyboardInterrupt goes on.

    Raises ValueError for wrong usage, EnvironmentFault where nothing can run, RuntimeFault at the end where a backend
    failed, and what the bundles and the source raise.
    """
    check_report_path(request.output)
    if request.cpus:
        pin(request.cpus)
    bundles = [_open_bundle(name) for name in request.bundles or (None,)]
    entries, left_out = find_entries(bundles, request.selection)
    frames = read_frames(request.source) if request.source else golden_frames(bundles, default_bundle_path())
    pictures = _read_labelled(request.labelled, entries)  # before the work: a fault in it is told at once
    load = Load()
    results = Results([], left_out, frames)
    try:
        with ExitStack() as stack:
            detectors = _open(entries, results, stack)
            _measure_frames(request, results, detectors)
            _measure_people(request, results)
            _measure_accuracy(results, pictures)
            _measure_sustained(request, results, detectors)
        results.complete = True
    except KeyboardInterrupt:
        if results.entries:
            _show(request, results, load)
        raise
    _show(request, results, load)
    failed = [one for one in results.left_out if one.failed]
    if failed:
        raise RuntimeFault(
            f"{len(failed)} of {len(entries)} entries failed, first {failed[0].name}: {failed[0].reason}"
        )


def _open_bundle(name: str | None) -> Bundle:
    """Raises ValueError for a file that is something else by its name, and what finding and opening a bundle raise."""
    suffix = Path(name or "").suffix.lower()
    if suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        raise ValueError(f"{name} is no bundle: to measure with a picture or a video, give it as --source {name}")
    if suffix == CHECKPOINT_SUFFIX:
        raise ValueError(f"{name} is a checkpoint: make a bundle of it with posesdk-convert")
    return open_bundle(find_bundle(name))


def _open(entries: list[Entry], results: Results, stack: ExitStack) -> list[Detector]:
    """A warm detector of each entry that runs here; `results` gets those entries, and the reasons of the others."""
    detectors = []
    image, _ = results.frames.load(0)
    with counting("opening", len(entries)) as on_entry:
        for done, entry in enumerate(entries, start=1):
            try:
                detector = entry.detector()
            except EnvironmentFault as error:
                results.left_out.append(LeftOut(entry.name, str(error)))
                continue
            stack.enter_context(closing(detector))
            try:
                _warm_up(detector, image)
            except RuntimeFault as error:
                results.left_out.append(LeftOut(entry.name, str(error), failed=True))
                continue
            results.entries.append(entry)
            results.net_sizes.append(detector.net_size((image.shape[0], image.shape[1])))
            detectors.append(detector)
            on_entry(done)
    if not results.entries:
        first = results.left_out[-1]
        fault = RuntimeFault if first.failed else EnvironmentFault
        raise fault(f"nothing can be measured here: {first.name}: {first.reason}")
    return detectors


def _warm_up(work: Callable[[NDArray[np.uint8]], object], image: NDArray[np.uint8]) -> None:
    for _ in range(WARM_UP):
        work(image)


def _read_labelled(labelled: Labelled | None, entries: list[Entry]) -> dict[str, PictureFiles]:
    """The labelled pictures for each skeleton, none where none are asked for."""
    if labelled is None:
        return {}
    skeletons = {entry.bundle.spec.skeleton.name: entry.bundle.spec.skeleton for entry in entries}
    return {name: labelled.read(skeleton) for name, skeleton in skeletons.items()}


def _measure_frames(request: BenchmarkRequest, results: Results, detectors: list[Detector]) -> None:
    """Latency, throughput, start-up, batches; the accuracy that is recorded."""
    entries, frames, budget = results.entries, results.frames, request.budget
    for index, entry in enumerate(entries):
        if (recorded := recorded_accuracy(entry)) is not None:
            results.accuracy[index] = recorded
    results.latency = Rounds([frame_work(detector, frames) for detector in detectors])
    with counting("latency", PERCENT) as on_percent:
        results.latency.run(budget, len(entries), on_percent)
    results.rates = Rates(detectors, frames)
    with counting("throughput", SLICES * len(entries)) as on_slice:
        results.rates.run(budget.seconds * STREAMED, on_slice)
    with counting("fresh processes", RUNS * len(entries)) as on_process:
        measure_fresh(entries, frames.load(0)[0], results.fresh, on_process)
    if request.batch:
        results.batches = BatchTimes(entries, detectors, frames, request.batch)
        with counting("batches", PERCENT) as on_percent:
            results.batches.run(budget, on_percent)


def _measure_people(request: BenchmarkRequest, results: Results) -> None:
    if not request.people:
        return
    with ExitStack() as stack:
        pipelines = [stack.enter_context(closing(entry.pipeline())) for entry in results.entries]
        image, _ = results.frames.load(0)
        for pipeline in pipelines:
            _warm_up(pipeline.run, image)
        results.people = PeopleTimes(results.entries, request.people)
        with counting("people", PERCENT) as on_percent:
            results.people.run(pipelines, image, request.budget, on_percent)
    for index, reason in results.people.refused.items():
        results.left_out.append(LeftOut(f"{results.entries[index].name} with people", reason))


def _measure_accuracy(results: Results, labelled: dict[str, PictureFiles]) -> None:
    for index, entry in enumerate(results.entries if labelled else ()):
        pictures = labelled[entry.bundle.spec.skeleton.name]
        with counting(f"accuracy of {entry.name}", len(pictures)) as on_picture:
            results.accuracy[index] = measured_accuracy(entry, pictures, on_picture)


def _measure_sustained(request: BenchmarkRequest, results: Results, detectors: list[Detector]) -> None:
    """One entry after the other: what heats the machine is one at a time."""
    if request.sustained is None:
        return
    for entry, detector in zip(results.entries, detectors, strict=True):
        found = Sustained(request.sustained, entry.candidate.device)
        results.sustained.append((entry, found))
        with counting(f"sustained: {entry.name}", TENTHS) as on_tenth:
            found.run(detector, results.frames, on_tenth)


def _show(request: BenchmarkRequest, results: Results, load: Load) -> None:
    conditions = conditions_of(results, load, request.selection.threads)
    err = request.output == STDOUT
    for line in condition_lines(results, conditions):
        show_line(line, err=err)
    show_line("", err=err)
    for table in report_tables(results):
        show_table(table, err=err)
    for one in results.left_out:
        show_line(f"{'FAILED' if one.failed else 'left out'} {one.name}: {one.reason}", err=err)
    if not results.complete:
        show_line("interrupted: these are the figures of what was done by then", err=err)
    if request.output is not None:
        write_report(request.output, report_dict(results, conditions))
