"""The figures of `stream_rate.py` and `growth.py` from laps of known rates."""

from itertools import count

import pytest

from growth import neighbours, numbers, people_table, stream_table
from stream_rate import Lap, medians, rate_table


def laps(*rates: float, cpu: float = 1.0) -> list[Lap]:
    return [Lap(rate, cpu) for rate in rates]


def test_a_lap_counts_frames_over_all_times_through_the_video(monkeypatch):
    ticks, spent = count(), iter([1.0, 7.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks) / 2)  # half a second from look to look
    monkeypatch.setattr("time.process_time", lambda: next(spent))
    assert Lap.of(lambda: iter("abc"), 10.0) == Lap(rate=2.0, cpu=300.0)  # 20 frames in 6 s of a processor


def test_ratios_are_medians_of_those_within_a_round():
    one_by_one, stream = laps(10, 20, 40), laps(20, 30, 44)
    table = rate_table({("", "read alone"): laps(100, 100, 100), ("a", "one by one"): one_by_one, ("a", "s"): stream})
    assert [row[2] for row in table.rows] == ["100.0", "20.0", "30.0"]
    assert [row[6:] for row in table.rows] == [("-", "1.00"), ("1.00", "0.20"), ("1.50", "0.30")]


def test_the_median_is_that_of_rates_and_of_processor_time():
    assert medians([Lap(1, 5), Lap(3, 7), Lap(9, 6)]) == (3, 6)


def test_the_largest_step_of_streams_is_where_most_is_lost_in_total():
    table = stream_table({1: [laps(80)], 2: [laps(50, 40)], 4: [laps(10, 10, 15, 10)], 8: [laps(*[5] * 8)]})
    assert [row[1:] for row in table.rows][1:3] == [("90.0", "45.0", "40.0"), ("45.0", "10.0", "10.0")]
    assert table.notes == ("largest step between neighbours: 2 to 4 streams, x0.50 in total",)


def test_the_largest_step_of_people_is_that_of_one_more():
    alone = {1: laps(100), 5: laps(50), 6: laps(25)}  # 10, 20 and 40 ms
    (note,) = people_table(alone, alone).notes
    assert note == (
        "largest step between neighbours: 5 to 6 people, 20.000 ms for each one more; the median of all steps is 11.250"
    )


def test_numbers_are_sorted_and_at_least_two():
    assert numbers("8,1,2,1") == (1, 2, 8)
    assert neighbours(dict.fromkeys(numbers("8,1,2"))) == [(1, 2), (2, 8)]
    with pytest.raises(Exception, match="two numbers or more"):
        numbers("3")
