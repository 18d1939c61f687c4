"""Each measurement in a process of its own, so that memory and processor time are its alone."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


def in_child(
    function: Callable[..., dict[str, Any]], *args: Any, within_s: float, **environment: str
) -> dict[str, Any]:
    """What `function(*args)` gives in a fresh process; {"error": ...} where it fails, or takes longer.

    `environment` is added to that of the process.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, function, args), daemon=False)
    kept = dict(os.environ)
    os.environ.update(environment)
    process.start()
    os.environ.clear()
    os.environ.update(kept)
    there.close()
    try:
        result: dict[str, Any] = here.recv() if here.poll(within_s) else {"error": f"no end after {within_s:.0f} s"}
    except EOFError:
        process.join()
        result = {"error": f"the process ended with code {process.exitcode}"}
    process.join(5)
    if process.is_alive():
        process.kill()
    return result


def _answer(pipe: Connection, function: Callable[..., dict[str, Any]], args: tuple[Any, ...]) -> None:
    pipe.send(function(*args))
    pipe.close()
