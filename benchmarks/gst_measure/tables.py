"""The results as Markdown."""

from collections.abc import Iterable
from typing import Any

FRAME_MS = 1000 / 30
LEAST_FPS = 28.0
MOST_ADDED_MS = 5.0
SHARES_DIFFER = 0.1
"""By which the streams of one model may differ."""


def load_table(results: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    """One line for each set-up around one stream."""
    lines = [
        "| set-up | camera | into element | out | fps | added p50 / p95 / max, ms | latency p50 / max, ms | "
        "latency, first / last quarter, ms | pose age p50 / p95 / max, ms | model p50, ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for title, result in results:
        if "error" in result:
            lines.append(f"| {title} | {result['error']} |")
            continue
        (one,) = result["streams"]
        latency = one["latency_ms"]
        quarters = f"{_n(one['latency_first_quarter_ms'])} / {_n(one['latency_last_quarter_ms'])}"
        lines.append(
            f"| {title} | {one['camera']} | {one['entered']} | {one['out']} | {one['fps']:.1f} | "
            f"{_three(one['added_ms'])} | {_n(latency['p50'])} / {_n(latency['max'])} | {quarters} | "
            f"{_three(one['age_ms'])} | {_n(one['model_ms']['p50'])} |"
        )
    return lines


def shares_table(results: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    """Several streams through one model."""
    lines = [
        "| set-up | fps out, each | inferred, each | least / most | inferred a second, together | pose age p50, ms |",
        "|---|---|---|---|---|---|",
    ]
    for title, result in results:
        if "error" in result:
            lines.append(f"| {title} | {result['error']} |")
            continue
        streams = result["streams"]
        inferred = [one["stats"]["inferred"] for one in streams]
        seconds = streams[0]["camera"] / 30
        lines.append(
            f"| {title} | {', '.join(format(one['fps'], '.1f') for one in streams)} | "
            f"{', '.join(map(str, inferred))} | {min(inferred) / max(inferred):.2f} | "
            f"{sum(inferred) / seconds:.1f} | {', '.join(_n(one['age_ms']['p50']) for one in streams)} |"
        )
    return lines


def processor_table(results: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    """How much of a core a pipeline takes that sees nobody."""
    lines = [
        "| pipeline | fps | % of a core | of that the element | processor time for a frame, ms | model p50, ms |",
        "|---|---|---|---|---|---|",
    ]
    without = {"cpu_percent": 0.0, "cpu_s": 0.0}
    for title, result in results:
        if "error" in result:
            lines.append(f"| {title} | {result['error']} |")
            continue
        (one,) = result["streams"]
        inferred = one["stats"].get("inferred")
        if not inferred:
            without = result
        less = without if inferred and "added_ms" in one else {"cpu_percent": 0.0, "cpu_s": 0.0}
        more = result["cpu_percent"] - less["cpu_percent"] if inferred else None
        each = 1e3 * (result["cpu_s"] - less["cpu_s"]) / inferred if inferred else None
        lines.append(
            f"| {title} | {one['fps']:.1f} | {result['cpu_percent']:.1f} | {_n(more)} | {_n(each)} | "
            f"{_n(one['model_ms']['p50'])} |"
        )
    return lines


def targets(results: dict[str, dict[str, Any]]) -> list[str]:
    """What was wanted, what was measured, and whether that is met."""
    lines = ["| target | measured | met |", "|---|---|---|"]
    for name, kind in (("skip", "the model"), ("slow-skip", "the slow model")):
        if "streams" in results.get(name, {}):
            lines += _skip_targets(results[name]["streams"][0], kind)
    for name, title in (("leaky", "sync behind a leaky queue"), ("drop", "drop")):
        for prefix, kind in (("", "the model"), ("slow-", "the slow model")):
            if "streams" in results.get(prefix + name, {}):
                one = results[prefix + name]["streams"][0]
                first, last = one["latency_first_quarter_ms"], one["latency_last_quarter_ms"]
                lines.append(
                    _target(
                        f"{title}, {kind}: latency does not grow by a frame",
                        f"{_n(first)} to {_n(last)} ms",
                        last <= first + FRAME_MS,
                    )
                )
    for name, kind in (("four", "the model"), ("slow-four", "the slow model")):
        if "streams" in results.get(name, {}):
            inferred = [one["stats"]["inferred"] for one in results[name]["streams"]]
            fair = max(inferred) - min(inferred) <= max(1, SHARES_DIFFER * max(inferred))
            text = f"4 streams, {kind}: shares within {SHARES_DIFFER:.0%}, or one frame"
            lines.append(_target(text, f"{min(inferred)} to {max(inferred)}", fair))
    return lines


def _skip_targets(one: dict[str, Any], kind: str) -> list[str]:
    age, model = one["age_ms"]["p50"], one["model_ms"]["p50"]
    floor = max(2 * model, FRAME_MS)
    return [
        _target(f"skip, {kind}: at least {LEAST_FPS:.0f} fps", f"{one['fps']:.1f}", one["fps"] >= LEAST_FPS),
        _target(
            f"skip, {kind}: adds less than {MOST_ADDED_MS:.0f} ms (median)",
            f"{one['added_ms']['p50']:.2f} ms",
            one["added_ms"]["p50"] < MOST_ADDED_MS,
        ),
        _target(
            f"skip, {kind}: pose age at most twice the model's time, or one frame (median)",
            f"{age:.0f} ms; twice the model's time is {2 * model:.0f} ms",
            age <= floor + 0.1,
        ),
    ]


def _target(text: str, measured: str, met: bool) -> str:
    return f"| {text} | {measured} | {'yes' if met else 'NO'} |"


def _three(spread: dict[str, float | None]) -> str:
    return " / ".join(_n(spread[name]) for name in ("p50", "p95", "max"))


def _n(value: float | None) -> str:
    """A number with as many digits as mean something; a dash for none."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
