"""Frames a second of a video through `Detector.stream`, one by one, and read alone, in turns in one run.

    python benchmarks/stream_rate.py VIDEO [BUNDLE] [--variant cpu-int8 ...] [--threads 2] [--rounds 5] [--seconds 4]

The video is read over and over, opened anew each time. Ratios are medians of those within a round, in which all ways
have their turn; CPU ms are those of all threads for a frame, which other programs disturb least.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posesdk.benchmark.machine import Load, describe_machine
from posesdk.bundle import default_bundle_path
from posesdk.detector import Detector
from posesdk.poses import Poses
from posesdk.sources import open_source
from posesdk.terminal import show_line

READ = "read alone"
ONE_BY_ONE, STREAM = "one by one", "Detector.stream"
WARM_UP = 10
"""Frames of the first video that each detector sees before the clock runs."""


@dataclass(frozen=True, slots=True)
class Lap:
    """One turn of a way through the video."""

    rate: float
    cpu: float

    @classmethod
    def of(cls, way: Callable[[], Iterable[object]], seconds: float) -> "Lap":
        """Takes the frames of a way for so long; begins again where they end."""
        count, start, cpu = 0, time.perf_counter(), time.process_time()
        while True:
            for _ in way():
                count += 1
                if (spent := time.perf_counter() - start) >= seconds:
                    return cls(count / spent, (time.process_time() - cpu) * 1e3 / count)


def main() -> None:
    options = read_arguments()
    load = Load()
    with ExitStack() as stack:
        ways: dict[tuple[str, str], Callable[[], Iterable[object]]] = {("", READ): lambda: open_source(options.video)}
        detectors = {}
        for variant in options.variant or ("cpu-int8", "cpu-fp32", "onnx-int8"):
            detector = stack.enter_context(Detector(options.bundle, variant=variant, threads=options.threads))
            detectors[variant] = detector
            ways |= {(variant, ONE_BY_ONE): one_by_one(detector, options.video)}
            ways |= {(variant, STREAM): streamed(detector, options.video)}
        people = {variant: warm_up(detector, options.video) for variant, detector in detectors.items()}
        laps = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, frames in ways.items():
                laps[way].append(Lap.of(frames, options.seconds))
        show_conditions(options, detectors, people, load)
    show_table(laps)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("bundle", nargs="?", type=Path, default=default_bundle_path())
    parser.add_argument("--variant", action="append", help="as `posesdk info` lists them; may be given several times")
    parser.add_argument("--threads", type=int, help="as for Detector; left to the runtime unless given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each way in each round")
    return parser.parse_args()


def one_by_one(detector: Detector, video: Path) -> Callable[[], Iterable[Poses]]:
    def frames() -> Iterable[Poses]:
        with open_source(video) as source:
            for frame in source:
                yield detector(frame)

    return frames


def streamed(detector: Detector, video: Path) -> Callable[[], Iterable[Poses]]:
    def frames() -> Iterable[Poses]:
        with detector.stream(video) as results:
            yield from results

    return frames


def warm_up(detector: Detector, video: Path) -> float:
    """People in a frame on average."""
    with closing(detector.stream(video)) as results:
        return float(np.mean([len(poses) for poses, _ in zip(results, range(WARM_UP), strict=False)]))


def show_conditions(
    options: argparse.Namespace, detectors: Mapping[str, Detector], people: Mapping[str, float], load: Load
) -> None:
    with open_source(options.video) as source:
        height, width = next(iter(source)).image.shape[:2]
    found = describe_machine([detector.info.runtime for detector in detectors.values()])
    show_line("; ".join(f"{name} {value}" for name, value in found.items() if value is not None))
    show_line("; ".join(f"{name} {value}" for name, value in load.to_dict().items()))
    show_line(f"{options.video.name} {width}x{height}, {options.rounds} rounds of {options.seconds} s a way")
    for variant, detector in detectors.items():
        threads = options.threads or "left to the runtime"
        show_line(f"{variant}: {detector!r}, threads {threads}, {people[variant]:.1f} people in a frame")


def show_table(laps: Mapping[tuple[str, str], Sequence[Lap]]) -> None:
    show_line("")
    show_line("| variant | way | frames/s, median | best | ms a frame | CPU ms a frame | x one by one | x read alone |")
    show_line("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for (variant, way), own in laps.items():
        rate = float(np.median([lap.rate for lap in own]))
        ratios = [ratio(own, laps[other]) if other in laps else "" for other in ((variant, ONE_BY_ONE), ("", READ))]
        best, cpu = max(lap.rate for lap in own), float(np.median([lap.cpu for lap in own]))
        cells = [variant, way, f"{rate:.1f}", f"{best:.1f}", f"{1e3 / rate:.2f}", f"{cpu:.2f}", *ratios]
        show_line(f"| {' | '.join(cells)} |")


def ratio(own: Sequence[Lap], other: Sequence[Lap]) -> str:
    return f"{np.median([one.rate / two.rate for one, two in zip(own, other, strict=True)]):.2f}"


if __name__ == "__main__":
    main()
