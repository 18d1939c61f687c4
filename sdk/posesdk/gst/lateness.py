"""Which frames of a live stream come too late."""

__all__ = ["Lateness"]

WINDOW_NS = 5_000_000_000
"""How long the least lateness counts, once to twice: the clock of a camera and that of the pipeline drift apart."""


class Lateness:
    """Compares how late frames arrive with the earliest one of late; all times are running times in ns.

    A source has a lateness of its own, as the jitter buffer of a network camera: only what is added to it counts.
    """

    def __init__(self) -> None:
        self._least: int | None = None
        self._least_before: int | None = None
        self._since = 0

    def forget(self) -> None:
        """Starts anew, as after a flush."""
        self._least = self._least_before = None

    def is_late(self, now: int, due: int, allowed: int) -> bool:
        """Whether a frame of time `due`, here `now`, is more than `allowed` later than the earliest one."""
        lateness = now - due
        if self._least is None or now - self._since > WINDOW_NS:
            self._least_before, self._least, self._since = self._least, lateness, now
        self._least = min(self._least, lateness)
        usual = self._least if self._least_before is None else min(self._least, self._least_before)
        return lateness - usual > allowed
