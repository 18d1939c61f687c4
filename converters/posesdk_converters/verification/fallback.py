"""How many layers an int8 variant has to keep in float until it passes the gate."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from posesdk_converters.target import FloatLayers
from posesdk_converters.verification.sensitivity import LayerError, most_sensitive

__all__ = ["fewest_float_layers"]

Attempt = TypeVar("Attempt")


def fewest_float_layers(
    ranking: Sequence[LayerError],
    attempt: Callable[[FloatLayers], Attempt],
    passes: Callable[[Attempt], bool],
) -> tuple[int, Attempt] | None:
    """How many of the most sensitive layers, put back to float, let an attempt pass, and that attempt.

    1, 2, 4, ... layers are tried, then the numbers between the last failure and the first success by halves. None where
    not even the whole ranking helps. The attempt of the answer is the last one that was made.
    """
    failed, count, best = 0, 1, None
    while best is None:
        count = min(count, len(ranking))
        tried = attempt(most_sensitive(ranking, count))
        if passes(tried):
            best = tried
        elif count == len(ranking):
            return None
        else:
            failed, count = count, 2 * count
    latest = count
    while count - failed > 1:
        latest = (failed + count) // 2
        tried = attempt(most_sensitive(ranking, latest))
        if passes(tried):
            count, best = latest, tried
        else:
            failed = latest
    if latest != count:  # files of the last attempt are what a caller is left with
        best = attempt(most_sensitive(ranking, count))
    return count, best
