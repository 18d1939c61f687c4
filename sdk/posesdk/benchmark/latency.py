"""Single frames from their bytes to drawn poses: the time of each stage."""

import time
from collections.abc import Callable, Sequence

from posesdk.benchmark.entries import Entry
from posesdk.benchmark.frames import Frames
from posesdk.benchmark.rounds import LEAST, SPREAD, Lap, Rounds
from posesdk.benchmark.tables import Table, number_of
from posesdk.detector import Detector
from posesdk.draw import draw_poses

__all__ = ["STAGE_NAMES", "TOTAL", "frame_work", "latency_of", "stage_table"]

STAGE_NAMES: dict[str, tuple[str, ...]] = {
    "preprocess": ("preprocess",),
    "trunk": ("trunk",),
    "decode poses": ("decode",),
    "adapt": ("context", "adapt", "refine"),
    "postprocess": ("postprocess",),
}
"""What the stages of `Poses.timing` are called together in the tables."""
DECODE_IMAGE, DRAW, TOTAL = "decode image", "draw", "total"
COLUMNS = (DECODE_IMAGE, *STAGE_NAMES, DRAW)


def frame_work(detector: Detector, frames: Frames) -> Callable[[int], Lap]:
    """Takes a frame from its bytes to drawn poses; the ms of each stage, their total, and the number of people.

    What a call spends around its stages, on checking the frame and on making `Poses`, counts as postprocess.
    """

    def work(index: int) -> Lap:
        image, decoding = frames.load(index % len(frames))
        start = time.perf_counter()
        poses = detector(image)
        found = time.perf_counter()
        draw_poses(image, poses)
        drawn = time.perf_counter()
        lap = {name: sum(poses.timing[part] for part in parts) for name, parts in STAGE_NAMES.items()}
        lap["postprocess"] += (found - start) * 1e3 - sum(poses.timing.values())
        lap |= {DECODE_IMAGE: decoding, DRAW: (drawn - found) * 1e3}
        return lap | {TOTAL: decoding + (drawn - start) * 1e3, "people": float(len(poses))}

    return work


def latency_of(rounds: Rounds, entry: int) -> dict[str, object]:
    """For JSON: least time and percentiles of the whole and of each stage in ms, and the number of rounds."""
    return {
        "frames": len(rounds.laps),
        "end_to_end_ms": rounds.spread(entry, TOTAL),
        "speed_up": rounds.speed_up(entry, TOTAL),
        "stages_ms": {name: rounds.spread(entry, name) for name in COLUMNS},
        "people": float(rounds.values(entry, "people").mean()),
    }


def stage_table(rounds: Rounds, entries: Sequence[Entry]) -> Table:
    """Four rows an entry: the least time and the percentiles of each stage, and of their sum."""
    rows = []
    for index, entry in enumerate(entries):
        found = [rounds.spread(index, name) for name in (*COLUMNS, TOTAL)]
        for part in SPREAD:
            rows.append((entry.name if part == LEAST else "", part, *(f"{one[part]:.2f}" for one in found)))
    frames = number_of(len(rounds.laps), "frame")
    return Table(f"Stages of a frame in ms, {frames} each", ("entry", "", *COLUMNS, TOTAL), tuple(rows), texts=2)
