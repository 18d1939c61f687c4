import os
import signal
import threading

import pytest

from posesdk.interrupts import held_back, stop_as_interrupted

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _own_handlers():
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def steps_done(number: int, times: int) -> list[str]:
    """What a block still did that got the signal before each of its steps."""
    done = []
    try:
        with held_back():
            for index in range(times):
                os.kill(os.getpid(), number)
                done.append(f"step {index}")
        done.append("after the block")
    except KeyboardInterrupt:
        return done
    return [*done, "no interruption"]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_waits_for_the_end_of_the_block(number):
    signal.signal(number, signal.SIG_DFL)
    stop_as_interrupted()
    assert steps_done(number, times=1) == ["step 0"]
    assert signal.getsignal(number) is signal.default_int_handler


def test_a_second_signal_does_not_wait():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert steps_done(signal.SIGINT, times=2) == ["step 0"]


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_as_interrupted()
    with held_back():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_thread_of_its_own_may_use_the_block():
    done = []

    def work():
        with held_back():
            done.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["done"]
