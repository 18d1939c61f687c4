"""Frames a second of a video through `Detector.stream`, one by one, and read alone, in turns in one run.

    python benchmarks/stream_rate.py VIDEO [BUNDLE] [--variant cpu-int8 ...] [--threads 2] [--rounds 5] [--seconds 4]

The video is read over and over, opened anew each time. Ratios are medians of those within a round, in which all ways
have their turn; CPU ms are those of all threads for a frame, which other programs disturb least.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posesdk.benchmark.machine import Load, describe_machine
from posesdk.benchmark.tables import Table, show_table
from posesdk.bundle import default_bundle_path
from posesdk.detector import Detector
from posesdk.poses import Poses
from posesdk.sources import open_source
from posesdk.terminal import show_line

__all__ = ["Lap", "Way", "arguments", "medians", "show_conditions", "streamed", "warm_up"]

Way = Callable[[], Iterable[object]]
"""Goes through the video once."""

ONE_BY_ONE, STREAM = "one by one", "Detector.stream"
VARIANTS = ("cpu-int8", "cpu-fp32", "onnx-int8")
WARM_UP = 20
"""Frames of the video that each detector sees before the clock runs."""


@dataclass(frozen=True, slots=True)
class Lap:
    """One turn of a way: frames a second, and ms of processor time in all threads for a frame."""

    rate: float
    cpu: float

    @classmethod
    def of(cls, way: Way, seconds: float) -> "Lap":
        """Goes on for so long, over and over."""
        count, start, cpu = 0, time.perf_counter(), time.process_time()
        while True:
            for _ in way():
                count += 1
                if (spent := time.perf_counter() - start) >= seconds:
                    return cls(count / spent, (time.process_time() - cpu) * 1e3 / count)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--variant", action="append", help="as `posesdk info` lists them; may be given several times")
    options = parser.parse_args()
    load, video = Load(), options.video
    ways: dict[tuple[str, str], Way] = {("", "read alone"): lambda: open_source(video)}
    people: dict[Detector, float] = {}
    with ExitStack() as stack:
        for variant in options.variant or VARIANTS:
            detector = stack.enter_context(Detector(options.bundle, variant=variant, threads=options.threads))
            ways[variant, ONE_BY_ONE] = one_by_one(detector, video)
            ways[variant, STREAM] = streamed(detector, video)
            people[detector] = warm_up(detector, video)
        laps = {way: list[Lap]() for way in ways}
        for _ in range(options.rounds):
            for way, frames in ways.items():
                laps[way].append(Lap.of(frames, options.seconds))
    show_conditions(options, people, load)
    show_table(rate_table(laps), err=False)


def arguments(description: str) -> argparse.ArgumentParser:
    """What every measurement with a video wants to know."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("bundle", nargs="?", type=Path, default=default_bundle_path())
    parser.add_argument("--threads", type=int, help="as for Detector; left to the runtime unless given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each way in each round")
    return parser


def one_by_one(detector: Detector, video: Path) -> Way:
    def frames() -> Iterator[Poses]:
        with open_source(video) as source:
            for frame in source:
                yield detector(frame)

    return frames


def streamed(detector: Detector, video: Path) -> Way:
    def frames() -> Iterator[Poses]:
        with detector.stream(video) as results:
            yield from results

    return frames


def warm_up(detector: Detector, video: Path) -> float:
    """People in a frame on average."""
    with detector.stream(video) as results:
        return float(np.mean([len(poses) for poses, _ in zip(results, range(WARM_UP), strict=False)]))


def show_conditions(options: argparse.Namespace, people: Mapping[Detector, float], load: Load) -> None:
    """The machine, what else it did, the video and the detectors with the people that they find in a frame."""
    machine = describe_machine([detector.info.runtime for detector in people])
    show_line("; ".join(f"{name} {value}" for name, value in machine.items() if value is not None))
    show_line("; ".join(f"{name} {value}" for name, value in load.to_dict().items()))
    with open_source(options.video) as source:
        height, width = next(iter(source)).image.shape[:2]
    show_line(f"{options.video.name} {width}x{height}, {options.rounds} rounds of {options.seconds} s for each figure")
    for detector, count in people.items():
        threads = detector.info.threads or "left to the runtime"
        show_line(f"{detector!r}, threads {threads}, {count:.1f} people in a frame")
    show_line("")


def rate_table(laps: Mapping[tuple[str, str], Sequence[Lap]]) -> Table:
    rows = []
    for (variant, way), own in laps.items():
        rate, cpu = medians(own)
        ratios = [_ratio(own, laps.get(other)) for other in ((variant, ONE_BY_ONE), next(iter(laps)))]
        best = max(lap.rate for lap in own)
        rows.append((variant, way, f"{rate:.1f}", f"{best:.1f}", f"{1e3 / rate:.2f}", f"{cpu:.2f}", *ratios))
    headings = ("variant", "way", "frames/s", "best", "ms/frame", "CPU ms/frame", "x one by one", "x read alone")
    return Table("Frames of a video", headings, tuple(rows), texts=2)


def medians(laps: Sequence[Lap]) -> tuple[float, float]:
    """Of frames a second, and of ms of processor time for a frame."""
    return float(np.median([lap.rate for lap in laps])), float(np.median([lap.cpu for lap in laps]))


def _ratio(own: Sequence[Lap], other: Sequence[Lap] | None) -> str:
    if other is None:
        return "-"
    return f"{np.median([one.rate / two.rate for one, two in zip(own, other, strict=True)]):.2f}"


if __name__ == "__main__":
    main()
