"""CPU time of this process, by the stage that it went into."""

import time

__all__ = ["StageClock"]


class StageClock:
    """Adds up CPU seconds between laps; `seconds` by stage, in the order in which they came first."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def reset(self) -> None:
        """Forgets all and starts anew."""
        self.seconds = {}
        self.start()

    def start(self) -> None:
        """What went before belongs to no stage."""
        self._last = time.process_time()

    def lap(self, stage: str) -> None:
        """What went since the last call belongs to this stage."""
        now = time.process_time()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now
