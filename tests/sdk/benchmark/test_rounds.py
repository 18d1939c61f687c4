"""Works that take turns: their order, their figures, and ratios that hold on a machine that slows down."""

import numpy as np
import pytest

from posesdk.benchmark.rounds import Budget, Rounds

ONCE = Budget(0.0, 1)


def quiet(percent: int) -> None:
    """Nobody watches."""


def steady(milliseconds: float):
    return lambda index: {"total": milliseconds}


def test_every_work_is_done_twice_in_a_row_and_another_one_begins_each_round():
    calls: list[tuple[str, int]] = []

    def work(name):
        return lambda index: calls.append((name, index)) or {"total": 1.0}

    Rounds([work("a"), work("b"), work("c")]).run(Budget(0.0, 3), 1, quiet)
    orders = ["aabbcc", "bbccaa", "ccaabb"]
    assert calls == [(name, number) for number, order in enumerate(orders) for name in order]


def test_the_ratio_holds_while_the_machine_gets_slower():
    drift = [1.0, 1.5, 2.0, 5.0, 9.0]
    rounds = Rounds([lambda i: {"total": 3 * drift[i]}, lambda i: {"total": 2 * drift[i]}])
    rounds.run(Budget(0.0, 5), 2, quiet)
    assert rounds.speed_up(0, "total") == 1
    assert rounds.speed_up(1, "total") == pytest.approx(1.5)
    assert rounds.speed_up(0, "total", first=1) == pytest.approx(2 / 3)


def test_percentiles_are_those_of_the_counted_frames_alone():
    values = iter(number for value in range(101) for number in (1e9, float(value)))
    rounds = Rounds([lambda index: {"total": next(values)}])
    rounds.run(Budget(0.0, 101), 1, quiet)
    assert rounds.spread(0, "total") == {"least": 0.0, "p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_a_round_that_is_cut_short_does_not_count():
    def interrupted(index):
        if index == 2:
            raise KeyboardInterrupt
        return {"total": 1.0}

    rounds = Rounds([steady(2.0), interrupted])
    with pytest.raises(KeyboardInterrupt):
        rounds.run(Budget(0.0, 9), 2, quiet)
    assert len(rounds.laps) == 2
    assert np.array_equal(rounds.values(0, "total"), [2.0, 2.0])


def test_a_spent_budget_of_time_still_gives_three_rounds_and_ends_at_100_percent():
    told: list[int] = []
    rounds = Rounds([steady(1.0)])
    rounds.run(Budget(0.0), 1, told.append)
    assert len(rounds.laps) == 3
    assert told == [33, 66, 100]
