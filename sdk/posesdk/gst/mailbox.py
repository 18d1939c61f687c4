"""One thread that serves the newest frame of each of several clients, in turns."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from posesdk.leaving import stop_at_the_end
from posesdk_runtimes.errors import RuntimeFault

if TYPE_CHECKING:
    from posesdk.poses import Poses
    from posesdk.video import Frame

__all__ = ["Job", "Worker"]


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A frame that waits for its poses; frames of equal `key` may go into one batch."""

    frame: "Frame"
    key: Any
    future: "Future[Poses]" = field(default_factory=Future)

    def discard(self) -> None:
        """Cancels the future, so that everybody who waits for it wakes up."""
        if self.future.cancel():
            self.future.set_running_or_notify_cancel()


class Worker:
    """A thread, and one slot for each client: a newer frame takes the place, and the turn, of the one that waits.

    `detect` gives the poses of up to `batch` jobs of one key and is called on the thread alone, as are the callbacks of
    the futures. Slots are served in the order in which they were filled, so whoever waits is at most one round of the
    other clients away from being served. The thread calls `free` at its end.
    """

    def __init__(
        self,
        detect: "Callable[[Sequence[Job]], list[Poses]]",
        free: Callable[[], None],
        *,
        batch: int = 1,
        name: str = "posesdk",
    ) -> None:
        self._detect, self._free, self._batch, self._name = detect, free, batch, name
        self._changed = threading.Condition()
        self._clients: set[object] = set()
        self._slots: dict[object, Job] = {}  # by client, in the order in which they were filled
        self._running: set[object] = set()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        stop_at_the_end(self)

    def join(self, client: object) -> None:
        """Lets a client submit frames."""
        with self._changed:
            self._clients.add(client)

    def submit(self, client: object, job: Job) -> None:
        """Puts a job into the client's slot; the one that waits there is discarded.

        Raises RuntimeFault for a client that has left.
        """
        with self._changed:
            if client not in self._clients:
                raise RuntimeFault(f"cannot give a frame to {self._name}: this client has been closed; open another")
            replaced = self._slots.get(client)
            self._slots[client] = job
            self._changed.notify_all()
        if replaced is not None:
            replaced.discard()

    def cancel(self, client: object) -> None:
        """Discards the job in the client's slot; one that runs already is not stopped."""
        with self._changed:
            job = self._slots.pop(client, None)
            self._changed.notify_all()
        if job is not None:
            job.discard()

    def drain(self, client: object, timeout: float | None = None) -> bool:
        """Returns True when nothing of the client waits or runs and the callbacks of its futures have returned; False
        after `timeout` seconds.

        On the worker's own thread, so in such a callback, it returns at once: it would wait for itself.
        """
        if threading.current_thread() is self._thread:
            return True
        with self._changed:
            return self._changed.wait_for(lambda: client not in self._slots and client not in self._running, timeout)

    def leave(self, client: object) -> None:
        """Takes no more jobs of the client, discards the one that waits, and waits for the one that runs."""
        with self._changed:
            self._clients.discard(client)
        self.cancel(client)
        self.drain(client)

    def close(self) -> None:
        """Discards what waits and ends the thread, after what runs; on the thread itself it does not wait for that."""
        self.stop(None)

    def stop(self, timeout: float | None) -> None:
        """As `close`, but returns after `timeout` seconds even if the thread still runs."""
        with self._changed:
            self._closed = True
            self._clients.clear()
            waiting = list(self._slots.values())
            self._slots.clear()
            self._changed.notify_all()
        for job in waiting:
            job.discard()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while self._serve_next():
                pass
        finally:
            self._free()

    def _serve_next(self) -> bool:
        """Whether there was something to serve before the end; a function, so that no frame outlives its turn."""
        taken = self._take()
        running = {client: job for client, job in taken.items() if job.future.set_running_or_notify_cancel()}
        self._done(*(client for client in taken if client not in running))  # what its caller has cancelled
        if running:
            self._serve(running)
        return bool(taken)

    def _take(self) -> dict[object, Job]:
        """The job that waits longest and, up to the limit of a batch, those that go with it; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._slots or self._closed)
            if not self._slots:
                return {}
            key = next(iter(self._slots.values())).key
            alike = [client for client, job in self._slots.items() if job.key == key][: self._batch]
            self._running.update(alike)
            return {client: self._slots.pop(client) for client in alike}

    def _serve(self, jobs: dict[object, Job]) -> None:
        """Fills the futures; where a batch of several fails, each runs alone, and only what is at fault fails."""
        try:
            results = list(zip(jobs.items(), self._detect(list(jobs.values())), strict=True))
        except BaseException as error:  # noqa: BLE001  (whoever waits for the future gets it)
            if len(jobs) > 1:
                for client, job in jobs.items():
                    self._serve({client: job})
                return
            for client, job in jobs.items():
                job.future.set_exception(error)
                self._done(client)
            return
        for (client, job), poses in results:
            job.future.set_result(poses)
            self._done(client)

    def _done(self, *clients: object) -> None:
        with self._changed:
            self._running.difference_update(clients)
            self._changed.notify_all()
