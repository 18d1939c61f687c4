"""A model that is slow, for measurements only."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from posesdk.detector import Detector
from posesdk.poses import Poses


@contextmanager
def slowed(more_ms: float) -> Iterator[None]:
    """Every inference sleeps as well: as a slow model on an accelerator does, which leaves the processor alone."""

    def slow(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            time.sleep(more_ms / 1e3)
            found = method(*args, **kwargs)
            return (
                [_lengthened(one, more_ms) for one in found] if isinstance(found, list) else _lengthened(found, more_ms)
            )

        return call

    kept = {name: getattr(Detector, name) for name in ("detect_all", "detect_batch") if hasattr(Detector, name)}
    for name, method in kept.items():
        setattr(Detector, name, slow(method))
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(Detector, name, method)


def _lengthened(poses: Poses, more_ms: float) -> Poses:
    return replace(poses, timing={**poses.timing, "sleep": more_ms})
