"""Published pose models of others beside posesdk's in one run: accuracy, latency, frames per second, growth; and plots.

    python benchmarks/compare_peers.py --peers FOLDER --data COCO.json --video FILE --output FOLDER
        [--ours BUNDLE[:PRECISION] ...] [--only yolo-640 ...] [--parts accuracy latency video people] [--limit N]

FOLDER of the peers holds yolov8n_pose_int8_openvino, posenet_mobilenet_v1_075_tflite,
movenet_singlepose_lightning_tflite and rtmdet_nano_person_onnx; it is only read. Everybody gets the same pictures, the
same number of threads and, on the video, the same threads and queues, and all take turns: other load on the machine
changes the times, the ratios hardly. Times are from decoded pixels to poses; video from the file. Tables on standard
output; two PNGs and peers.json in the output folder.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2

from peers.accuracy import measure_accuracy
from peers.crowds import measure_growth, whole_person
from peers.finder import Finder, Image
from peers.latency import Latency, measure_latency
from peers.opening import PEERS, open_finders
from peers.plots import Line, Point, plot_growth, plot_tradeoff
from peers.rate import Rate, measure_rates
from peers.tables import growth_table, picture_table, rate_table, ratio_lines
from posesdk.benchmark.machine import Load, describe_machine
from posesdk.images import read_image
from posesdk.terminal import show_line, show_text
from posesdk_training.evaluation.ground_truth import GroundTruth, load_ground_truth
from posesdk_training.evaluation.keypoints import KeypointAccuracy
from posesdk_training.report.grids import Table
from posesdk_training.report.markdown import markdown_table

PARTS = ("accuracy", "latency", "video", "people")
OURS = ("default", "dac-nano")
LIBRARIES = ("openvino", "tflite")


def main() -> None:
    options = parse_options()
    cv2.setNumThreads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    load = Load()
    truth = load_ground_truth(options.data, limit=options.limit)
    folder = options.images or options.data.parent / "images"
    finders = open_finders(options.ours, options.only, options.peers, options.threads)
    show_conditions(options, truth, load)
    report: dict[str, object] = {"machine": describe_machine(LIBRARIES), "threads": options.threads}
    if {"accuracy", "latency"} & set(options.parts):
        report["pictures"] = compare_pictures(finders, truth, folder, options)
    if "video" in options.parts:
        report["video"] = compare_rates(finders, options)
    if "people" in options.parts:
        report["people"] = compare_growth(finders, whole_person(truth, folder), options)
    report["load"] = during = load.to_dict()
    show_line(f"While this ran, other programs took {during['others_during']:.0%} of the machine.")
    (options.output / "peers.json").write_text(json.dumps(report, indent=1) + "\n")


def parse_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder of the published models")
    parser.add_argument("--data", type=Path, required=True, help="annotations in COCO's format")
    parser.add_argument("--images", type=Path, help="folder of its photos; else `images` beside it")
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder for plots and peers.json")
    parser.add_argument("--ours", nargs="*", default=list(OURS), metavar="BUNDLE[:PRECISION]")
    parser.add_argument("--only", nargs="*", default=list(PEERS), choices=list(PEERS), metavar="PEER")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--limit", type=int, help="photos for the accuracy; all of them by default")
    parser.add_argument("--pictures", type=int, default=24, help="photos for the latency, spread over all")
    parser.add_argument("--frames", type=int, default=120, help="of the video, in each round")
    parser.add_argument("--people", type=int, nargs="+", default=[1, 2, 5, 10, 20, 30])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of every network, and of OpenCV")
    options = parser.parse_args()
    if not options.ours and not options.only:
        parser.error("nothing to compare: name a model with --ours or --only")
    return options


def show_conditions(options: argparse.Namespace, truth: GroundTruth, load: Load) -> None:
    """What else may explain the figures."""
    machine = describe_machine(LIBRARIES)
    backends = ", ".join(f"{name} {version}" for name, version in machine["runtimes"].items())
    show_line(
        f"{machine['processor']}, {len(machine['affinity'] or ()) or machine['logical_cores']} cores used of "
        f"{machine['logical_cores']}; {options.threads} threads for every network and for OpenCV. "
        f"Python {machine['python']}, {backends}, OpenCV {machine['opencv']}, numpy {machine['numpy']}. "
        f"Before the run: load average {load.average or 0:.1f}, other programs take {load.others:.0%} of the machine. "
        f"Accuracy on {len(truth.image_ids)} photos, {len(truth.persons)} labelled persons of "
        f"{options.data.parent.name}; video {options.video.name}."
    )


def compare_pictures(
    finders: Mapping[str, Finder], truth: GroundTruth, folder: Path, options: argparse.Namespace
) -> dict[str, object]:
    """Accuracy and latency on photos: a table, and the plot where both are measured."""
    accuracies: dict[str, KeypointAccuracy] = {}
    if "accuracy" in options.parts:
        for name, finder in finders.items():
            show_line(f"accuracy: {finder.title}", err=True)
            accuracies[name] = measure_accuracy(finder, truth, folder, lambda done: None)
    latencies: dict[str, Latency] = {}
    if "latency" in options.parts:
        paths = [path for _, path in truth.image_list(folder)]
        images = [read_image(path, oriented=False) for path in paths[:: -(-len(paths) // options.pictures)]]
        works = {name: finder.poses for name, finder in finders.items()}
        show_line(f"latency of {len(images)} photos", err=True)
        latencies = measure_latency(works, images, options.rounds, show_tens)
        show_line(f"Latency of {len(images)} of the photos, {options.rounds} rounds.")
    show_table(picture_table(finders, accuracies, latencies))
    if accuracies and latencies:
        points = [
            Point(
                finder.title, latencies[name].percentile(50), latencies[name].percentile(95), ap, name in options.ours
            )
            for name, finder in finders.items()
            if (ap := accuracies[name].stats.get("AP")) is not None
        ]
        plot_tradeoff(points, plot_note(options), options.output / "ap-latency.png")
    return {
        name: {"title": finder.title}
        | ({"accuracy": accuracies[name].stats} if name in accuracies else {})
        | ({"latency": latencies[name].to_dict()} if name in latencies else {})
        for name, finder in finders.items()
    }


def compare_rates(finders: Mapping[str, Finder], options: argparse.Namespace) -> dict[str, object]:
    """Frames per second of the video: a table, and the ratios of ours to the others."""
    rates: dict[str, Rate] = measure_rates(
        finders, options.video, options.frames, options.rounds, lambda text: show_line(text, err=True)
    )
    show_line(f"{options.video.name}, {options.frames} frames a round, {options.rounds} rounds, file to poses.")
    show_table(rate_table(finders, rates))
    for line in ratio_lines(finders, rates, options.ours):
        show_line(f"- {line}")
    return {name: rate.to_dict() for name, rate in rates.items()}


def compare_growth(finders: Mapping[str, Finder], person: Image, options: argparse.Namespace) -> dict[str, object]:
    """Latency against people: a table and the plot."""
    counts: Sequence[int] = sorted(options.people)
    show_line("latency against people", err=True)
    growth = measure_growth(finders, person, counts, 4 * options.rounds, show_tens)
    show_line(
        "Median ms of a 720p picture with one person so many times. Ours: people planted behind the trunk; MoveNet: "
        "as many crops; the others decode what they find, in brackets where that is another number."
    )
    show_table(growth_table(finders, growth))
    lines = [
        Line(finder.title, counts, [growth[count][name].percentile(50) for count in counts], name in options.ours)
        for name, finder in finders.items()
    ]
    plot_growth(lines, plot_note(options), options.output / "latency-people.png")
    return {
        finder.title: {str(count): growth[count][name].to_dict() for count in counts}
        for name, finder in finders.items()
    }


def plot_note(options: argparse.Namespace) -> str:
    """The conditions that a plot cannot do without."""
    machine = describe_machine(LIBRARIES)
    return f"{machine['processor']}, {options.threads} threads; {options.data.parent.name}"


def show_tens(percent: int) -> None:
    """Progress, a line for about every tenth."""
    if percent % 10 == 0:
        show_line(f"{percent} %", err=True)


def show_table(table: Table) -> None:
    show_text(f"\n{markdown_table(table)}\n\n")


if __name__ == "__main__":
    main()
