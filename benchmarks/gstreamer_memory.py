"""Whether memory stays flat: two live streams for a long time, and many short pipelines; print a table.

    python benchmarks/gstreamer_memory.py [--minutes 30] [--cycles 200] [--only long,cycles,leaks] [--json FILE]

The long run is mode=skip at 720p30 with one shared model, draw, attach=all, messages and a JSON sidecar. Memory is
the resident size of the process; growth is the slope of a line through the later two thirds of a run. The short
pipelines have one heap (MALLOC_ARENA_MAX=1): with one for each thread, glibc takes hundreds of them to fill up.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from gst_measure.child import in_child
from gst_measure.conditions import conditions, sentence
from gst_measure.memory import ONE_HEAP, count_leaks, run_cycles, run_long

VIDEO = Path(__file__).resolve().parents[2] / "shared/data/videos/group_exercise_720p25.mp4"
KINDS = ("long", "cycles", "leaks")
TRACED = 20
"""Cycles under the tracer of leaks."""
LESS_THAN_MIB = 1.0
"""In 10 minutes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--only", default=",".join(KINDS), help=f"of {', '.join(KINDS)}, with commas")
    parser.add_argument("--model", default="", help="a bundle; else the default model")
    parser.add_argument("--video", type=Path, default=VIDEO)
    parser.add_argument("--json", type=Path, help="also write everything there")
    parser.add_argument("--traced-cycles", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.traced_cycles:
        run_cycles(options.traced_cycles, options.model)
        return
    facts = conditions()
    print(sentence(facts), flush=True)
    results: dict[str, Any] = {}
    for kind in options.only.split(","):
        results[kind] = measure(kind, options)
    print(
        "\n".join(
            ["", "| run | memory in the second / last third, MiB | growth | wanted | also |", "|---|---|---|---|---|"]
        )
    )
    for kind, result in results.items():
        print(line(kind, result))
    if options.json:
        options.json.write_text(json.dumps({"conditions": facts, "results": results}, indent=1) + "\n")


def measure(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """One of `KINDS`."""
    if kind == "long":
        return in_child(run_long, options.video, options.minutes, options.model, within_s=60 * options.minutes + 300)
    if kind == "cycles":
        return in_child(run_cycles, options.cycles, options.model, within_s=60 + 10 * options.cycles, **ONE_HEAP)
    if kind == "leaks":
        return count_leaks(__file__, TRACED, options.model)
    raise SystemExit(f"expected one of {', '.join(KINDS)}, got {kind!r}")


def line(kind: str, result: dict[str, Any]) -> str:
    """A row of the table."""
    if "error" in result:
        return f"| {kind} | {result['error']} |"
    if kind == "leaks":
        found = "; ".join(result["alive"]) or "none"
        count = len(result["alive"])
        return f"| {result['cycles']} pipelines under the tracer of leaks | - | {count} alive | 0 | {found} |"
    sizes = f"{result['second_third_mib']} / {result['last_third_mib']}"
    if kind == "cycles":
        also = f"{result['elements_alive']} elements alive; {result['ms_per_cycle']} ms each"
        growth = f"{result['kib_per_cycle']} KiB each"
        return f"| {result['cycles']} pipelines, one after another | {sizes} | {growth} | 0 | {also} |"
    frames = sum(stream["frames"] for stream in result["streams"])
    inferred = sum(stream["inferred"] for stream in result["streams"])
    also = f"{frames} frames, {inferred} inferred, {result['messages']} messages"
    growth = f"{result['mib_per_10_min']:+.2f} MiB in 10 min"
    return f"| {result['minutes']} min, 2 streams | {sizes} | {growth} | < {LESS_THAN_MIB:g} MiB | {also} |"


if __name__ == "__main__":
    main()
