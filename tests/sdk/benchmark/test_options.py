"""What the texts of the options mean."""

import pytest

from posesdk.benchmark.machine import spans
from posesdk.benchmark.options import parse_counts, parse_cpus, parse_names, parse_sustained


def test_a_list_is_the_same_with_commas_and_with_the_option_again():
    assert parse_names(["fp32, int8", "fp32", "bf16"], "--precision") == ("fp32", "int8", "bf16")
    assert parse_names(["fp32", "int8", "bf16"], "--precision") == parse_names(["fp32,int8,bf16"], "--precision")
    assert parse_counts(["1, 5", "10,5"], "--people", 0, 20) == (1, 5, 10)


def test_an_option_that_was_not_given_is_auto_or_nothing():
    assert parse_names(None, "--precision") == ("auto",)
    assert (parse_counts(None, "--people", 0, 20), parse_cpus(None), parse_sustained(None)) == ((), (), None)


@pytest.mark.parametrize("text", ["-1", "21", "1,,2", "", "1.5", "x", "1-3", "9" * 5000])
def test_what_is_no_number_within_the_limits_is_refused_by_the_option_s_name(text):
    with pytest.raises(ValueError, match="--people: expected whole numbers from 0 to 20"):
        parse_counts(["1", text], "--people", 0, 20)


@pytest.mark.parametrize("cpus", [(0,), (0, 1, 2, 3), (0, 2, 4), (1, 2, 5, 7, 8, 9)])
def test_spans_of_processors_are_read_as_the_tables_write_them(cpus):
    assert parse_cpus([spans(cpus)]) == cpus
    assert parse_cpus([str(cpu) for cpu in cpus]) == cpus
    assert parse_cpus(["0-3, 6"]) == (0, 1, 2, 3, 6)


@pytest.mark.parametrize("text", ["2-1", "1-", "-1", "1-2-3", "", "0-9999999", "a-b"])
def test_what_is_no_span_is_refused(text):
    with pytest.raises(ValueError, match="--cpus: expected processors like"):
        parse_cpus([text])


def test_times_are_read_in_seconds_minutes_and_hours():
    assert [parse_sustained(text) for text in ("30s", "10m", "1h", "12.5")] == [30, 600, 3600, 12.5]


@pytest.mark.parametrize("text", ["0", "9.9s", "0.1m"])
def test_a_run_whose_tenths_would_tell_nothing_is_refused_with_the_least_time(text):
    with pytest.raises(ValueError, match="at least 10s"):
        parse_sustained(text)
