import os
import shlex
import signal
import subprocess
import sys
import threading

import pytest

from posesdk.interrupts import end_at_once, end_in_order, held_back, stop_as_interrupted

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


BEGUN = """
import os, signal, sys
from {program} import main

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number:d})

sys.meta_path.insert(0, Finder())
sys.argv = ["program", "info" if "{program}" == "posesdk.cli" else "--help"]
main()
"""
"""A command, and a signal while it loads a module."""
COMMANDS = {
    "posesdk.cli": ["logging", "typer", "posesdk.commands", "pydantic", "posesdk.bundle"],
    "posesdk_converters.cli": ["logging", "typer", "posesdk_converters.program"],
    "posesdk_training.cli": ["typer", "posesdk_training.program"],
}


@pytest.mark.parametrize(("program", "module"), [(one, name) for one, names in COMMANDS.items() for name in names])
def test_ctrl_c_while_a_command_loads_is_one_line(program, module):
    done = subprocess.run(
        [sys.executable, "-c", BEGUN.format(program=program, module=module, number=signal.SIGINT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "posesdk: interrupted\n")


def test_a_stop_while_the_command_loads_is_told_as_ctrl_c_is():
    code = BEGUN.format(program="posesdk.cli", module="typer", number=signal.SIGTERM)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "posesdk: interrupted\n")


def test_nobody_needs_to_read_that_the_command_was_interrupted():
    code = BEGUN.format(program="posesdk.cli", module="typer", number=signal.SIGINT)
    shell = shlex.join([sys.executable, "-c", code]) + " 2>&-"
    assert subprocess.run(shell, shell=True, check=False).returncode == 130


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.default_int_handler])
def test_in_order_the_same_signals_interrupt_that_ended_at_once(before):
    signal.signal(signal.SIGTERM, before)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end_at_once()
    assert signal.getsignal(signal.SIGTERM) not in (before, signal.SIG_IGN)
    end_in_order()
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_program_that_did_not_begin_so_keeps_its_own_handlers():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_in_order()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
