"""What loading leaves out: said once, counted over all loader processes."""

import logging
import zlib

import torch

__all__ = ["SkipLog"]

logger = logging.getLogger(__name__)

SLOTS = 1 << 20
SPOKEN = 20
"""So many get a line each; after that only every doubling of their number does."""


class SkipLog:
    """Counts things that were left out, by name, in memory that loader processes share."""

    def __init__(self) -> None:
        self._slots = torch.zeros(SLOTS, dtype=torch.uint8)
        self._slots.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def count(self) -> int:
        """How many different things were left out, in all processes."""
        return int(self._slots.sum(dtype=torch.int64))

    def add(self, name: str, fault: object) -> None:
        """Takes note of a thing; says so where it is a new one."""
        slot = zlib.crc32(name.encode("utf-8", "surrogateescape")) % SLOTS
        if self._slots[slot]:
            return
        self._slots[slot] = 1
        count = self.count
        if count <= SPOKEN or count & (count - 1) == 0:
            logger.warning("skipped: %s (%d skipped so far)", fault, count)
