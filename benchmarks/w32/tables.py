"""The tables of the turns that published and own arithmetic took."""

from collections.abc import Mapping, Sequence

from posesdk.stopwatch import STAGES
from posesdk_training.report.grids import Table
from w32.turns import Laps

__all__ = ["AFTER", "ratio_table", "share_table", "time_table"]

AFTER = STAGES[STAGES.index("trunk") + 1 :]
"""The stages behind the trunk."""


def time_table(laps: Mapping[str, Laps]) -> Table:
    """ms of each contender, and the least ms of each of its stages."""
    rows = [
        (name, f"{one.least:.0f}", f"{one.median:.0f}", *(f"{one.stage(stage):.1f}" for stage in STAGES))
        for name, one in laps.items()
    ]
    return Table(("ms", "least", "median", *STAGES), tuple(rows))


def ratio_table(laps: Mapping[str, Laps], wanted: Sequence[tuple[str, str, float]]) -> Table:
    """How much faster one contender is than another from the picture to its poses: (slower, faster, least ratio)."""
    rows = [
        (f"{name} against {slow}", f"{laps[slow].least / laps[name].least:.2f}", f"{least:g}")
        for slow, name, least in wanted
    ]
    return Table(("end to end", "ratio", "wanted"), tuple(rows))


def share_table(laps: Mapping[str, Laps], trunk: str, wanted: Sequence[tuple[str, float]]) -> Table:
    """What the stages behind the trunk take in % of the trunk of one contender: (name, most)."""
    percent = laps[trunk].stage("trunk") / 100
    rows = [
        (
            *(name, f"{laps[name].stage(*AFTER) / percent:.1f}", f"{most:g}"),
            *(f"{laps[name].stage(stage) / percent:.1f}" for stage in AFTER),
        )
        for name, most in wanted
    ]
    return Table((f"after the trunk, % of the trunk of {trunk}", "together", "at most", *AFTER), tuple(rows))
