"""The conditions of a measurement."""

import platform

import psutil
import pytest

from posesdk.benchmark import machine
from posesdk.benchmark.machine import Load, affinity, describe_machine, pin


@pytest.fixture
def free_again():
    process = psutil.Process()
    if not hasattr(process, "cpu_affinity"):
        pytest.skip("this system has no affinity")
    before = process.cpu_affinity()
    yield before
    process.cpu_affinity(before)


def test_a_pinned_process_stays_on_its_processors(free_again):
    pin([free_again[-1]])
    assert affinity() == (free_again[-1],)
    assert describe_machine([])["affinity"] == (free_again[-1],)


def test_a_processor_that_is_not_there_is_refused_with_those_that_are(free_again):
    with pytest.raises(ValueError, match=rf"among .*{free_again[0]}.*, got 9999"):
        pin([9999])
    assert affinity() == tuple(free_again)


def test_the_backends_that_are_used_are_told_with_their_versions():
    told = describe_machine(["onnxruntime"])
    assert list(told["runtimes"]) == ["onnxruntime"]
    assert told["python"] == platform.python_version()
    assert told["processor"]


def test_what_others_take_is_what_is_busy_without_this_process(monkeypatch):
    moments = iter(
        machine._Moment(seconds, busy, own) for seconds, busy, own in [(0, 10, 1), (1, 10.5, 1.5), (11, 18.5, 5.5)]
    )
    last = machine._Moment(11, 18.5, 5.5)
    monkeypatch.setattr(machine, "GLANCE", 0.0)
    monkeypatch.setattr(machine, "_now", lambda: next(moments, last))
    monkeypatch.setattr(machine.psutil, "cpu_count", lambda logical=True: 2)
    load = Load()
    told = load.to_dict()
    assert told["others_before"] == 0.0
    assert told["others_during"] == pytest.approx((8 - 4) / (10 * 2))
    assert load.is_disturbed
