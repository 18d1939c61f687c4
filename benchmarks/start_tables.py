"""The tables that `start_up.py` prints of what `start_steps.py` and whole processes say."""

from statistics import median
from typing import Any

__all__ = ["print_steps", "print_targets", "print_wholes"]

Results = dict[str, list[dict[str, Any]]]
"""What the rounds gave, by the title of the row."""

MOST_MS = {"import": 150, "first": 600}
MOST_MIB = 200
"""What is wanted of the default model."""
VIDEO = ".avi"
"""What the titles of processes that run through a video hold."""
ADDED_UP = ("import", "classes", "detector", "first")
LOOKED_AT = {"import": "import posesdk", "classes": "Detector class", "detector": "Detector()", "first": "first poses"}


def print_steps(runs: Results) -> None:
    """Times and memory of every start."""
    print("\nFrom the first import, ms: the least (the median).\n")
    sums = ("import posesdk", "+ Detector class", "+ Detector()", "+ first poses")
    header("start", "python", *sums, "processor time of these", "first frame alone", "each later")
    for title, results in runs.items():
        times = [[added_up(result, step) for result in results] for step in ADDED_UP]
        times.append([added_up(result, "first", "processor") for result in results])
        times += [[step_of(result, step)["seconds"] for result in results] for step in ("first", "steady")]
        row(title, figure([step_of(result, "python")["seconds"] for result in results]), *map(figure, times))
    print("\nResident, MiB, and the most that it has been: after all frames, and after pictures of other sizes.\n")
    header("start", *LOOKED_AT.values(), "later", "most", "most, other sizes", "threads")
    for title, results in runs.items():
        now = [f"{median(step_of(result, step)['rss'] for result in results):.0f}" for step in (*LOOKED_AT, "steady")]
        most = [f"{highest(results, step):.0f}" for step in ("steady", "sizes")]
        row(title, *now, *most, str(max(result["threads"] for result in results)))


def print_wholes(wholes: Results) -> None:
    """Whole processes."""
    print("\nWhole processes, from their start to their end: ms, and the most that was resident.\n")
    header("process", "time", "processor time", "MiB")
    for title, results in wholes.items():
        times = [figure([result[key] for result in results]) for key in ("seconds", "processor")]
        row(f"`{title}`", *times, f"{max(result['peak'] for result in results):.0f}")


def print_targets(runs: Results, wholes: Results) -> None:
    """What is wanted beside what is: of times the median, of memory the most of any process."""
    imports = median(step_of(result, "import")["seconds"] for results in runs.values() for result in results)
    first = {title: median(added_up(result, "first") for result in results) for title, results in runs.items()}
    peaks = {title: highest(results, "sizes") for title, results in runs.items()}
    peaks |= {title: max(result["peak"] for result in results) for title, results in wholes.items()}
    slowest = max(first, key=first.__getitem__)
    print()
    header("figure", "wanted", "is")
    row("import posesdk", f"< {MOST_MS['import']} ms", f"{1e3 * imports:.0f} ms")
    row("first import to first poses, default", f"< {MOST_MS['first']} ms", f"{1e3 * first['default']:.0f} ms")
    row(f"the same, slowest: {slowest}", f"< {MOST_MS['first']} ms", f"{1e3 * first[slowest]:.0f} ms")
    for kind, videos in (("pictures", False), ("a video", True)):
        largest = max((title for title in peaks if (VIDEO in title) is videos), key=peaks.__getitem__)
        row(f"most resident with {kind}: {largest}", f"< {MOST_MIB} MiB", f"{peaks[largest]:.0f} MiB")


def step_of(result: dict[str, Any], name: str) -> dict[str, Any]:
    """One step of a run of `start_steps`."""
    found: dict[str, Any] = {step["name"]: step for step in result["steps"]}[name]
    return found


def added_up(result: dict[str, Any], last: str, key: str = "seconds") -> float:
    """Seconds from the first import to the end of a step; of the processors where `key` says so."""
    return float(sum(step_of(result, name)[key] for name in ADDED_UP[: ADDED_UP.index(last) + 1]))


def highest(results: list[dict[str, Any]], step: str) -> float:
    """The most MiB that were resident up to the end of a step, in any round."""
    return float(max(step_of(result, step)["peak"] for result in results))


def figure(seconds: list[float]) -> str:
    """The least and the median in ms."""
    digits = 0 if min(seconds) >= 0.02 else 1
    return f"{1e3 * min(seconds):.{digits}f} ({1e3 * median(seconds):.{digits}f})"


def header(*titles: str) -> None:
    """Titles of a Markdown table."""
    row(*titles)
    row(*("---" for _ in titles))


def row(*cells: str) -> None:
    """Cells of a Markdown table."""
    print(f"| {' | '.join(cells)} |", flush=True)
