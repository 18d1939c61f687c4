"""Makes the pictures of a run, in this process or in several."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2

from posesdk_training.synthetic.generator import Generator, Settings
from posesdk_training.synthetic.writer import Entry, OutputFolder, save_picture

__all__ = ["produce"]

SAVE_EVERY = 500
"""Pictures after which keypoints.json is brought up to date, so that training can start early."""


def produce(
    settings: Settings,
    folder: Path,
    *,
    count: int,
    workers: int,
    suffix: str = ".jpg",
    on_picture: Callable[[int], None] | None = None,
) -> Path:
    """Makes those of the first `count` pictures that `folder` lacks; the path of the annotations.

    `on_picture` gets the number of finished pictures. Raises DataError and what Generator raises.
    """
    output = OutputFolder(folder, settings)
    missing = output.missing(count)
    finished = count - len(missing)
    for entry in _entries(settings, folder, missing, workers=workers, suffix=suffix):
        output.add(entry)
        finished += 1
        if finished % SAVE_EVERY == 0:
            output.write_annotations()
        if on_picture is not None:
            on_picture(finished)
    return output.write_annotations()


def _entries(settings: Settings, folder: Path, indices: list[int], *, workers: int, suffix: str) -> Iterator[Entry]:
    if not indices:
        return
    if workers <= 1:
        _start(settings, folder, suffix)
        yield from map(_make, indices)
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start, initargs=(settings, folder, suffix)
    ) as pool:
        yield from pool.map(_make, indices, chunksize=8)


class _Worker:
    """What one process keeps between two pictures."""

    settings: Settings
    generator: Generator | None
    folder: Path
    suffix: str


def _start(settings: Settings, folder: Path, suffix: str) -> None:
    cv2.setNumThreads(1)
    _Worker.settings = settings
    _Worker.generator = None
    _Worker.folder = folder
    _Worker.suffix = suffix


def _make(index: int) -> Entry:
    if _Worker.generator is None:  # a pool would not hand on what is raised in _start
        _Worker.generator = Generator(_Worker.settings)
    return save_picture(_Worker.folder, index, _Worker.generator(index), _Worker.suffix)
