"""Memory that a thread uses again and again for what it computes on the way.

An array of more than some 100 KiB that is freed goes back to the system, and the next one costs a page fault for every
4 KiB of it: more time than most of what is done with its values.
"""

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Scratch"]


class Scratch(threading.local):
    """Arrays by name, in each thread its own. What is asked for holds anything, until its name is asked for again."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """An array of this shape; under one name always of one dtype. The memory grows with the largest ever asked."""
        size = math.prod(shape)
        kept = self._arrays.get(name)
        if kept is None or len(kept) < size:
            kept = self._arrays[name] = np.empty(size, dtype)
        return kept[:size].reshape(shape)
