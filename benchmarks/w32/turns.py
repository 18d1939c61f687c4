"""Contenders that take turns at one thing, so that ratios hold while other programs run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Laps", "take_turns"]

Timing = dict[str, float]
"""ms by stage."""


@dataclass(frozen=True, slots=True)
class Laps:
    """All turns of one contender."""

    turns: tuple[Timing, ...]

    @property
    def least(self) -> float:
        """ms of the fastest turn: the one that other programs disturbed least."""
        return min(sum(turn.values()) for turn in self.turns)

    @property
    def median(self) -> float:
        """ms of a turn."""
        return float(np.median([sum(turn.values()) for turn in self.turns]))

    def stage(self, *names: str) -> float:
        """Least ms of these stages together."""
        return min(sum(turn.get(name, 0.0) for name in names) for turn in self.turns)


def take_turns(
    contenders: Mapping[str, Callable[[], Timing]], rounds: int, on_turn: Callable[[str], None]
) -> dict[str, Laps]:
    """`rounds` turns of each contender, which gives the times of its stages, after one that does not count."""
    turns: dict[str, list[Timing]] = {name: [] for name in contenders}
    for count in range(rounds + 1):
        for name, run in contenders.items():
            on_turn(f"turn {count} of {rounds}: {name}" if count else f"warming up: {name}")
            timing = run()
            if count:
                turns[name].append(timing)
    return {name: Laps(tuple(laps)) for name, laps in turns.items()}
