"""A dry run as tables on stdout."""

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from posesdk_training.config import TrainConfig
from posesdk_training.data.shard_index import counted
from posesdk_training.data.statistics import SetStatistics
from posesdk_training.run.folder import BEST_FILE, PREVIOUS_FILE, STATE_FILE, WEIGHTS_FILE, has_state
from posesdk_training.settings.branches import BranchConfig
from posesdk_training.trials.dry_run import DryRun, PhaseCost

__all__ = ["show_dry_run"]

GIB, MIB = 1 << 30, 1 << 20


def show_dry_run(found: DryRun, config: TrainConfig, folder: Path) -> None:
    """Data, model, phases and files of a run."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(_data(found.sets))
    for entry in config.data.sets:
        if entry.shards is not None:
            console.print(f"{entry.name}: {_streamed(entry.shards)} streamed from {entry.shards}")
    for faulty in found.sets:
        for fault in faulty.faults:
            console.print(f"{faulty.name}: {fault}")
    console.print(
        f"{config.model.name}: {found.parameters:,} parameters{_stems(found)}, {found.gmac:.2f} GMAC an image for the "
        f"dense maps; {config.steps} steps of {found.samples_per_step} samples in {config.precision} on {found.device}"
    )
    if len(config.branches) > 1:
        console.print(_branches(config.branches))
    for index, phase in enumerate(found.phases):
        console.print(_phase(index, phase))
    console.print(_costs(found.phases))
    console.print(
        f"{found.hours:.1f} hours for all steps on one device; memory is "
        + (
            "that of the GPU"
            if found.device.startswith("cuda")
            else "that of this process, loader processes not counted"
        )
    )
    console.print(_files(found, config, folder))


def _streamed(shards: str) -> str:
    """What the index of a set says of it; the people are only known once the shards are read."""
    from posesdk_training.data.shard_index import find_shards  # with a library that photos in folders do without

    found = find_shards(shards)
    images = "images without a count" if found.images is None else f"{found.images} images"
    annotations = "" if found.annotations is None else f", {found.annotations} annotations"
    return f"{images}{annotations} in {counted(len(found.shards), 'shard')},"


def _data(sets: tuple[SetStatistics, ...]) -> Table:
    """Persons by size as COCO counts it; masked are crowds and people without keypoints."""
    columns = ("images", "empty", "persons", "small", "medium", "large", "masked", "keypoints")
    table = _table("set", *columns)
    for entry in sets:
        labelled = sum(count.occluded + count.visible for count in entry.keypoints)
        people = (entry.labelled, entry.sizes.small, entry.sizes.medium, entry.sizes.large)
        numbers = (entry.images, entry.images_without_people, *people, entry.unlabelled + entry.crowds)
        table.add_row(entry.name, *map(str, numbers), f"{labelled / max(entry.labelled, 1):.1f} each")
    return table


def _stems(found: DryRun) -> str:
    return f" and {found.stem_parameters:,} of stems for training alone" if found.stem_parameters else ""


def _branches(branches: tuple[BranchConfig, ...]) -> Table:
    """Their inputs in crop sides, and who is learned: sides of boxes in net px of the 4x view."""
    table = _table("branch", "input", "stem", "cells", "persons", "field of view", "weight")
    for branch in branches:
        inputs, cells, view = (f"{value:g} x" for value in (branch.input_scale, branch.grid_scale, branch.zoom))
        persons = _persons(*branch.area_range)
        table.add_row(branch.name, inputs, branch.used_stem, cells, persons, view, f"{branch.weight:g}")
    return table


def _persons(low: float, high: float | None) -> str:
    """Those with a box area in a range, as sides of square boxes."""
    limits = ([f"above {low**0.5:.0f}"] if low else []) + ([] if high is None else [f"up to {high**0.5:.0f}"])
    return f"{' '.join(limits)} px" if limits else "all"


def _phase(index: int, phase: PhaseCost) -> str:
    mixture = ", ".join(f"{name} {share:.0%}" for name, share in phase.mixture.items())
    rates = ", ".join(f"{rate:.2g}" for rate in phase.rates)
    adaptation = "on" if phase.adaptation else "off"
    dense = f"trained in {', '.join(phase.branches)}" if phase.branches else "at rest"
    return (
        f"phase {index}, steps {phase.start} to {phase.end}: {mixture}; dense net {dense}; adaptation {adaptation}; "
        f"learning rate first, highest, last {rates}"
    )


def _costs(phases: tuple[PhaseCost, ...]) -> Table:
    table = _table("phase", "crop", "of steps", "ms a step", "ms to load", "peak memory", "hours")
    for index, phase in enumerate(phases):
        for size in phase.sizes:
            whole = size is phase.sizes[-1]
            table.add_row(
                str(index),
                f"{size.side} px",
                f"{size.share:.0%}",
                f"{1000 * size.step_seconds:.0f}",
                f"{1000 * size.load_seconds:.0f}",
                f"{phase.peak_memory / GIB:.2f} GiB" if whole else "",
                f"{phase.hours:.2f}" if whole else "",
            )
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first)
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _files(found: DryRun, config: TrainConfig, folder: Path) -> str:
    state, weights = found.checkpoint_bytes / MIB, 4 * found.parameters / MIB
    begin = "would go on in" if has_state(folder) else "would be written to"
    names = f"{STATE_FILE} and {PREVIOUS_FILE} ({state:.0f} MiB each), {WEIGHTS_FILE} ({weights:.0f} MiB)"
    if config.validation is not None:
        names += f", {BEST_FILE}, validation.csv"
    if config.preview is not None:
        names += ", preview/"
    return f"{begin} {folder}: {names}, log.csv, tensorboard/, config.json. Nothing was written now"
