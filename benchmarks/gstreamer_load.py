"""What `logocappose` does with live 720p30 streams when the model keeps up, and when it does not; print tables.

    python benchmarks/gstreamer_load.py [--only skip,slow-skip] [--seconds 20] [--int8 BUNDLE] [--json FILE]

The pictures are those of real videos, decoded beforehand and given by the clock of the pipeline, 30 a second, whether
or not anybody takes them. Every set-up runs in a process of its own. Added latency is from the element's sink pad to
its source pad; latency is from the time of a frame to its arrival at the sink; the age of poses is that of the frame
that they were found in. The slow model is the same one with a pause, as if an accelerator computed.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gst_measure.child import in_child
from gst_measure.conditions import conditions, sentence
from gst_measure.load import PATIENCE, Settings, measure
from gst_measure.scenarios import SCENARIOS, Scenario
from gst_measure.tables import load_table, processor_table, shares_table, targets

VIDEOS = Path(__file__).resolve().parents[2] / "shared/data/videos"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"of {','.join(one.name for one in SCENARIOS)}, with commas")
    parser.add_argument("--seconds", type=float, default=20, help="of each stream")
    parser.add_argument("--slow-ms", type=float, default=100, help="pause of the slow model")
    parser.add_argument("--model", type=Path, help="a bundle; else the default model")
    parser.add_argument("--int8", type=Path, help="a bundle whose first variant is int8, for idle-int8")
    parser.add_argument("--video", type=Path, default=VIDEOS / "group_exercise_720p25.mp4")
    parser.add_argument("--empty-video", type=Path, default=VIDEOS / "empty_room_540p25.mp4", help="for idle")
    parser.add_argument("--json", type=Path, help="also write everything there")
    options = parser.parse_args()
    settings = Settings(
        options.seconds, options.video, options.empty_video, options.slow_ms, options.model, options.int8
    )
    chosen = choose(options.only, settings)
    facts = conditions()
    print(sentence(facts))
    print(f"{options.seconds:g} s of {PICTURES} at 30 fps from {options.video.name} and {options.empty_video.name}")
    results = {one.name: run(one, settings) for one in chosen}
    show(chosen, results, settings)
    if options.json:
        options.json.write_text(json.dumps({"conditions": facts, "results": results}, indent=1) + "\n")


PICTURES = "1280x720 I420"


def choose(only: str | None, settings: Settings) -> Sequence[Scenario]:
    """The scenarios of these names; all that can run without names."""
    if only is None:
        return [one for one in SCENARIOS if settings.int8 is not None or not one.int8]
    names = only.split(",")
    known = {one.name: one for one in SCENARIOS}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}")
    if settings.int8 is None and any(known[name].int8 for name in names):
        raise SystemExit("name the bundle with --int8")
    return [known[name] for name in names]


def run(scenario: Scenario, settings: Settings) -> dict[str, Any]:
    """Measured in a process of its own."""
    load_average = round(os.getloadavg()[0], 2)
    result = in_child(measure, scenario, settings, within_s=60 + settings.seconds * (PATIENCE + 3))
    return {**result, "load_average": load_average}


def show(chosen: Sequence[Scenario], results: dict[str, dict[str, Any]], settings: Settings) -> None:
    """Prints a table for each kind of scenario that ran, and the targets."""

    def of(**kind: object) -> list[tuple[str, dict[str, Any]]]:
        return [
            (one.title, results[one.name])
            for one in chosen
            if all(getattr(one, name) == value for name, value in kind.items())
        ]

    single = {"streams": 1, "empty": False, "rtsp": False}
    tables = (
        ("One stream, the model", load_table, of(slow=False, **single)),
        (f"One stream, the slow model (+{settings.slow_ms:g} ms)", load_table, of(slow=True, **single)),
        ("From the network", load_table, of(rtsp=True)),
        ("Four streams", shares_table, of(streams=4)),
        ("Nobody there", processor_table, of(empty=True)),
    )
    for title, table, rows in tables:
        if rows:
            print("\n".join(["", f"{title}:", "", *table(rows)]))
    print("\n".join(["", "Targets:", "", *targets(results)]))


if __name__ == "__main__":
    main()
