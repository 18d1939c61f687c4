"""Loaded models and the clients that share them."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, fields
from types import TracebackType

from posesdk.detector import DetectorInfo
from posesdk.gst.loaded import LoadedModel, ModelSettings, load_model
from posesdk.poses import Poses
from posesdk.video import Frame

__all__ = ["Client", "ModelSettings", "open_client"]


class Client:
    """One stream's access to a loaded model; its methods may be called from any thread.

    `warm_up_ms` is the time of the model's first run, which was made while it was opened.
    """

    def __init__(self, model: LoadedModel, release: Callable[[], None]) -> None:
        self.info: DetectorInfo = model.detector.info
        self.warm_up_ms: float = model.warm_up_ms
        self._model, self._worker = model, model.worker
        self._release = release
        self._closing = threading.Lock()
        self._closed = False
        self._worker.join(self)

    def submit(self, frame: Frame, *, score_threshold: float | None, max_people: int) -> "Future[Poses]":
        """The poses of a frame in the future; `score_threshold` of None is the model's own.

        A frame of this client that still waits is replaced, its future cancelled. Callbacks of the future run on the
        worker's thread, or where it is cancelled; they must not wait for a thread that closes this client. Raises
        RuntimeFault for a client that is closed.
        """
        return self._model.submit(self, frame, score_threshold=score_threshold, max_people=max_people)

    def cancel(self) -> None:
        """Drops the frame that waits; who waits for its future wakes up with CancelledError."""
        self._worker.cancel(self)

    def drain(self, timeout: float | None = None) -> bool:
        """Returns True when no frame of this client waits or runs any more and the callbacks of its futures have
        returned, at once on the worker's own thread, in such a callback; False after `timeout` seconds.
        """
        return self._worker.drain(self, timeout)

    def close(self) -> None:
        """Drops what waits, waits for the frame that runs, and frees the model if this is its last client.

        Closing twice is harmless. In a callback on the worker's own thread nothing is waited for: the model is freed
        as soon as the callback returns.
        """
        with self._closing:
            first, self._closed = not self._closed, True
        if first:
            self._worker.leave(self)
            self._release()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_client(settings: ModelSettings, instance_id: str = "") -> Client:
    """Loads a model and runs it once, or joins the one that is loaded as `instance_id`; "" is never shared.

    Raises ValueError for an `instance_id` that is in use with other settings, and the errors of `Detector`.
    """
    if not instance_id:
        model = load_model(settings)
        return Client(model, model.worker.close)
    entry = _shared.enter(instance_id, settings)
    try:
        model = entry.loaded.result()
    except BaseException:
        _shared.leave(instance_id, entry)
        raise
    return Client(model, lambda: _shared.leave(instance_id, entry))


@dataclass(slots=True, eq=False)
class _Entry:
    """A model that is loaded, or being loaded by the first who asked for it."""

    settings: ModelSettings
    loaded: "Future[LoadedModel]" = field(default_factory=Future)
    users: int = 0


class _Shared:
    """The models that have an instance id. The lock is never held while one is loaded, run or freed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def enter(self, instance_id: str, settings: ModelSettings) -> _Entry:
        """The entry of that name, with one more user; whoever makes it loads the model."""
        with self._lock:
            entry = self._entries.get(instance_id)
            if entry is not None and entry.settings != settings:
                raise ValueError(_conflict(instance_id, entry.settings, settings))
            first = entry is None
            if entry is None:
                entry = self._entries[instance_id] = _Entry(settings)
            entry.users += 1
        if first:
            self._fill(instance_id, entry)
        return entry

    def leave(self, instance_id: str, entry: _Entry) -> None:
        """One user less; the last one frees the model."""
        with self._lock:
            entry.users -= 1
            last = entry.users == 0
            if last:
                self._forget(instance_id, entry)
        if last and entry.loaded.exception() is None:
            entry.loaded.result().worker.close()

    def _fill(self, instance_id: str, entry: _Entry) -> None:
        """Loads the model; a failure is for those who wait for it now, and the next one who comes tries again."""
        try:
            entry.loaded.set_result(load_model(entry.settings))
        except BaseException as error:  # noqa: BLE001  (each of those who wait raises it)
            with self._lock:
                self._forget(instance_id, entry)
            entry.loaded.set_exception(error)

    def _forget(self, instance_id: str, entry: _Entry) -> None:
        if self._entries.get(instance_id) is entry:
            del self._entries[instance_id]


_shared = _Shared()


def _conflict(instance_id: str, loaded: ModelSettings, asked: ModelSettings) -> str:
    names = [entry.name for entry in fields(ModelSettings) if getattr(loaded, entry.name) != getattr(asked, entry.name)]
    has, wants = (", ".join(f"{name}={getattr(one, name)!r}" for name in names) for one in (loaded, asked))
    return (
        f"instance id {instance_id!r} is in use with {has} and cannot be opened with {wants}; "
        "use the same settings, or another instance id"
    )
