"""Under which conditions figures were taken, in lines and for JSON."""

from collections.abc import Iterator
from typing import Any

from posesdk.benchmark.machine import Load, describe_machine, spans
from posesdk.benchmark.report import Results
from posesdk.benchmark.tables import number_of

__all__ = ["condition_lines", "conditions_of"]

UNREAD = "not readable"


def conditions_of(results: Results, load: Load, threads: int | None) -> dict[str, Any]:
    """For JSON."""
    runtimes = sorted({entry.candidate.runtime for entry in results.entries})
    shape = results.frames.load(0)[0].shape
    source = {"name": results.frames.name, "frames": len(results.frames), "height": shape[0], "width": shape[1]}
    source["one_size"] = results.frames.one_size
    return {"machine": describe_machine(runtimes), "load": load.to_dict(), "threads": threads, "source": source}


def condition_lines(results: Results, conditions: dict[str, Any]) -> Iterator[str]:
    """For people."""
    machine, load, source = (conditions[name] for name in ("machine", "load", "source"))
    cpus = machine["affinity"]
    yield (
        f"machine: {machine['processor']}, {machine['cores'] or '?'} cores ({machine['logical_cores']} logical), "
        f"affinity {UNREAD if cpus is None else spans(cpus)}, threads {conditions['threads'] or 'left to the runtime'}"
    )
    clock = UNREAD if machine["megahertz"] is None else f"{machine['megahertz']:.0f} MHz"
    yield (
        f"clock: {clock}, governor {machine['governor'] or UNREAD}; "
        f"load average {_number(load['load_average_before'])} before, {_number(load['load_average_after'])} after; "
        f"other programs took {load['others_before']:.0%} of the processors before, {load['others_during']:.0%} during"
    )
    versions = {"posesdk": machine["posesdk"], "Python": machine["python"], "numpy": machine["numpy"]}
    versions |= {"OpenCV": machine["opencv"], **machine["runtimes"]}
    yield f"system: {machine['system']}, {', '.join(f'{name} {version}' for name, version in versions.items())}"
    size = f"{source['width']}x{source['height']}"
    sizes = size if source["one_size"] else f"several sizes, the first {size}"
    yield f"source: {source['name']}, {number_of(source['frames'], 'frame')} of {sizes}; {_nets(results)}"
    if load["disturbed"]:
        yield "WARNING: other programs were busy: trust ratios, not milliseconds, and measure again on a quiet machine"


def _nets(results: Results) -> str:
    """Sizes of the network's input, and people found; of several entries from the fewest to the most."""
    sizes = dict.fromkeys(f"{width}x{height}" for height, width in results.net_sizes)
    text = f"network input{'' if results.frames.one_size else ' of the first'} {' and '.join(sizes)}"
    latency = results.latency
    if latency is None or not latency.laps:
        return text
    found = sorted(
        {f"{latency.values(index, 'people').mean():.1f}" for index in range(len(results.entries))}, key=float
    )
    return f"{text}, {' to '.join(dict.fromkeys((found[0], found[-1])))} people a frame"


def _number(value: float | None) -> str:
    return UNREAD if value is None else f"{value:.2f}"
