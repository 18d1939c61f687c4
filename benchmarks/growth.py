"""How frames a second fall with the number of streams and of people: two tables, two plots and the largest steps.

    python benchmarks/growth.py VIDEO [BUNDLE] --output FOLDER [--variant cpu-int8] [--streams 1,2,4] [--people 1,30]

All streams go through one detector, each taken by a thread of its own. People are planted into what the trunk gives, so
that all else is the same; ms are those of one frame after the other, already decoded. Figures take turns in each round.
"""

import argparse
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from posesdk.benchmark.machine import Load
from posesdk.benchmark.planted import plant_people
from posesdk.benchmark.tables import Table, show_table
from posesdk.bundle import open_bundle
from posesdk.detector import Detector
from posesdk.pipeline import Pipeline, open_pipeline
from posesdk.sources import open_source
from posesdk.streaming import ResultStream, frames_at_once
from posesdk.terminal import show_line
from posesdk.variants import select_variant
from stream_rate import Lap, Way, arguments, medians, show_conditions, streamed, warm_up

STREAMS, PEOPLE = (1, 2, 4, 8), (1, 2, 3, 5, 7, 10, 15, 20, 25, 30)
Rates = dict[int, list[list[Lap]]]
"""For each number of streams, one round after the other, the lap of each stream."""


def main() -> None:
    options = read_arguments()
    load = Load()
    options.output.mkdir(parents=True, exist_ok=True)
    with Detector(options.bundle, variant=options.variant, threads=options.threads) as detector:
        found = {detector: warm_up(detector, options.video)}
        rates = measure_streams(detector, options)
    alone, video = measure_people(options)
    show_conditions(options, found, load)
    show_table(stream_table(rates), err=False)
    show_table(people_table(alone, video), err=False)
    plot_streams(rates, options.output / "streams.png")
    plot_people(alone, video, options.output / "people.png")


def read_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.set_defaults(rounds=3, seconds=3.0)
    parser.add_argument("--variant", default="cpu-int8")
    parser.add_argument("--streams", type=numbers, default=STREAMS)
    parser.add_argument("--people", type=numbers, default=PEOPLE)
    parser.add_argument("--output", type=Path, required=True, help="folder for streams.png and people.png")
    options: argparse.Namespace = parser.parse_args()
    return options


def numbers(text: str) -> tuple[int, ...]:
    values = tuple(sorted({int(part) for part in text.split(",")}))
    if len(values) < 2:
        raise argparse.ArgumentTypeError(f"expected two numbers or more, got {text}")
    return values


def measure_streams(detector: Detector, options: argparse.Namespace) -> Rates:
    way = streamed(detector, options.video)
    rates: Rates = {count: [] for count in options.streams}
    for _ in range(options.rounds):
        for count, rounds in rates.items():
            rounds.append(side_by_side_laps(way, count, options.seconds))
    return rates


def side_by_side_laps(way: Way, count: int, seconds: float) -> list[Lap]:
    laps: list[Lap] = []
    together = threading.Barrier(count)

    def take() -> None:
        together.wait()
        laps.append(Lap.of(way, seconds))

    takers = [threading.Thread(target=take) for _ in range(count)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    return laps


def measure_people(options: argparse.Namespace) -> tuple[dict[int, list[Lap]], dict[int, list[Lap]]]:
    """Laps for each number of people: one decoded frame after the other, and the video as a stream."""
    bundle = open_bundle(options.bundle)
    candidate = select_variant(bundle.manifest, "auto", "auto", "auto", variant=options.variant)[0]
    pipeline = open_pipeline(bundle, candidate, threads=options.threads)
    alone: dict[int, Way] = {}
    video: dict[int, Way] = {}
    for count in options.people:
        alone[count] = frame_after_frame(plant_people(pipeline, count), options.video)
        video[count] = through_a_stream(pipeline, count, options)
    laps: list[dict[int, list[Lap]]] = [{count: [] for count in options.people} for _ in (alone, video)]
    for turn in range(options.rounds + 1):
        for ways, own in zip((alone, video), laps, strict=True):
            for count, way in ways.items():
                lap = Lap.of(way, options.seconds / 2 if turn else 0.1)
                own[count] += [lap] if turn else []  # the first turn makes everything ready
    pipeline.close()
    return laps[0], laps[1]


def frame_after_frame(pipeline: Pipeline, video: Path) -> Way:
    with open_source(video) as source:
        image = next(iter(source)).image
    floor = pipeline.spec.decode.score_threshold
    return lambda: (pipeline.run(image, floor) for _ in range(100))


def through_a_stream(pipeline: Pipeline, count: int, options: argparse.Namespace) -> Way:
    workers, floor = frames_at_once(options.threads), pipeline.spec.decode.score_threshold
    planted = plant_people(pipeline.share(workers), count)

    def frames() -> Iterator[object]:
        with ResultStream(options.video, lambda frame: planted.run(frame.image, floor), workers=workers) as results:
            yield from results

    return frames


def stream_table(rates: Rates) -> Table:
    rows, totals = [], {}
    for count, rounds in rates.items():
        totals[count] = float(np.median([sum(lap.rate for lap in laps) for laps in rounds]))
        each = [lap.rate for laps in rounds for lap in laps]
        rows.append((str(count), f"{totals[count]:.1f}", f"{np.median(each):.1f}", f"{min(each):.1f}"))
    low, high = max(neighbours(totals), key=lambda pair: totals[pair[0]] / totals[pair[1]])
    note = f"largest step between neighbours: {low} to {high} streams, x{totals[high] / totals[low]:.2f} in total"
    headings = ("streams", "frames/s in total", "each, median", "each, least")
    return Table("Streams through one detector", headings, tuple(rows), (note,), texts=0)


def people_table(alone: Mapping[int, Sequence[Lap]], video: Mapping[int, Sequence[Lap]]) -> Table:
    times = {count: 1e3 / medians(laps)[0] for count, laps in alone.items()}
    rows = [
        (str(count), f"{times[count]:.2f}", f"{medians(alone[count])[1]:.2f}", f"{medians(laps)[0]:.1f}")
        for count, laps in video.items()
    ]
    costs = {(low, high): (times[high] - times[low]) / (high - low) for low, high in neighbours(times)}
    low, high = max(costs, key=lambda pair: costs[pair])
    usual = float(np.median(list(costs.values())))
    note = (
        f"largest step between neighbours: {low} to {high} people, {costs[low, high]:.3f} ms for each one more; the "
        f"median of all steps is {usual:.3f}"
    )
    return Table("People in a frame", ("people", "ms", "CPU ms", "frames/s of a stream"), tuple(rows), (note,), texts=0)


def neighbours(values: Mapping[int, float]) -> list[tuple[int, int]]:
    """Each number with the next one."""
    return list(zip(list(values)[:-1], list(values)[1:], strict=True))


def plot_streams(rates: Rates, path: Path) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="streams", ylabel="frames/s", title="Streams through one detector")
    totals = [np.median([sum(lap.rate for lap in laps) for laps in rounds]) for rounds in rates.values()]
    axes.plot(list(rates), totals, "o-", label="all together")
    each = [np.median([lap.rate for laps in rounds for lap in laps]) for rounds in rates.values()]
    axes.plot(list(rates), each, "s--", label="each")
    save(figure, path)


def plot_people(alone: Mapping[int, Sequence[Lap]], video: Mapping[int, Sequence[Lap]], path: Path) -> None:
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.add_subplot(1, 2, 1, xlabel="people", ylabel="ms", title="One frame, without reading")
    axes.plot(list(alone), [1e3 / medians(laps)[0] for laps in alone.values()], "o-", label="ms")
    axes.plot(list(alone), [medians(laps)[1] for laps in alone.values()], "s--", label="CPU ms")
    other = figure.add_subplot(1, 2, 2, xlabel="people", ylabel="frames/s", title="Video through a stream")
    other.plot(list(video), [medians(laps)[0] for laps in video.values()], "o-", label="frames/s")
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    figure.savefig(path)
    show_line(f"wrote {path}")


if __name__ == "__main__":
    main()
