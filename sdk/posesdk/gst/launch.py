"""Runs a pipeline as gst-launch-1.0 does: `posesdk gst launch`."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from posesdk.gst.bindings import GLib, Gst
from posesdk.gst.bus_faults import exit_code, report, report_plugin_missing
from posesdk.gst.plugin_packages import advice_for
from posesdk.interrupts import counted
from posesdk.terminal import FAILURE, INTERRUPTED, show_line

__all__ = ["LaunchOptions", "launch", "parse_pipeline"]

TURN = 100 * Gst.MSECOND
"""How long the bus is waited for before signals and the main context have their turn."""

LONGEST_END = 10.0
"""Seconds in which an end of stream that was asked for must arrive at all sinks."""
LONGEST_END_OF_REST = 3.0
"""The same after an error: the branch that failed may let no end through."""


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """What the command line asks for beside the pipeline."""

    eos_on_shutdown: bool = False
    verbose: bool = False
    messages: bool = False
    quiet: bool = False


def parse_pipeline(words: Sequence[str]) -> Any:
    """The pipeline (Gst.Pipeline) of one text, or of the words that a shell made of it. Raises ValueError.

    So is a value out of its property's range, or for one that is read only: GStreamer warns, and goes on without it.
    """
    with warnings.catch_warnings(record=True) as complaints:  # what becomes of GLib's
        warnings.simplefilter("always")
        try:
            parsed = Gst.parse_launch(words[0]) if len(words) == 1 else Gst.parse_launchv(list(words))
        except GLib.Error as error:
            raise ValueError(f"cannot make the pipeline: {error.message}{advice_for(error.message)}") from error
    for text in (str(complaint.message) for complaint in complaints):
        if "out of range for property" in text or "is not writable" in text:
            raise ValueError(f"cannot make the pipeline: {text}; `posesdk gst inspect ELEMENT` prints what it takes")
        show_line(f"posesdk: warning: {text}", err=True)
    if isinstance(parsed, Gst.Pipeline):
        return parsed
    pipeline = Gst.Pipeline.new(None)
    pipeline.add(parsed)
    return pipeline


def launch(pipeline: Any, options: LaunchOptions) -> int:
    """Runs a pipeline until it ends, fails or is interrupted, and stops it; gives the exit code."""
    return _Run(pipeline, options).until_done()


class _Run:
    """One pipeline from its start to its end, driven by the messages on its bus."""

    def __init__(self, pipeline: Any, options: LaunchOptions) -> None:
        self._pipeline = pipeline
        self._bus = pipeline.get_bus()
        self._options = options
        self._live = False
        self._buffering = False
        self._playing_since: float | None = None
        self._interrupts = 0
        self._ending: tuple[int, float] | None = None  # exit code, deadline
        self._code: int | None = None
        self._handlers: dict[Any, Callable[[Any], None]] = {
            Gst.MessageType.EOS: self._on_eos,
            Gst.MessageType.ERROR: self._on_error,
            Gst.MessageType.WARNING: self._on_warning,
            Gst.MessageType.INFO: self._on_warning,
            Gst.MessageType.ASYNC_DONE: self._on_prerolled,
            Gst.MessageType.BUFFERING: self._on_buffering,
            Gst.MessageType.LATENCY: lambda message: pipeline.recalculate_latency(),
            Gst.MessageType.CLOCK_LOST: self._on_clock_lost,
            Gst.MessageType.REQUEST_STATE: lambda message: self._set_state(message.parse_request_state()),
            Gst.MessageType.ELEMENT: self._on_element,
            Gst.MessageType.PROPERTY_NOTIFY: self._on_property,
        }

    def until_done(self) -> int:
        if self._options.verbose:
            self._pipeline.add_property_deep_notify_watch(None, True)
        context = GLib.MainContext.default()
        with counted() as interrupts:
            try:
                self._start()
                while self._code is None:
                    while context.iteration(False):
                        pass
                    message = self._bus.timed_pop(TURN)
                    if message is not None:
                        self._handle(message)
                    self._look_at_time_and_signals(interrupts())
            finally:
                self._pipeline.set_state(Gst.State.NULL)
        return self._code

    def _start(self) -> None:
        change = self._set_state(Gst.State.PAUSED)
        if change == Gst.StateChangeReturn.NO_PREROLL:
            self._live = True
            self._say("live: running until the end of the stream, or Ctrl-C")
        if change in (Gst.StateChangeReturn.NO_PREROLL, Gst.StateChangeReturn.SUCCESS):
            self._play()

    def _set_state(self, state: Any) -> Any:
        change = self._pipeline.set_state(state)
        if change == Gst.StateChangeReturn.FAILURE:
            self._fail_to_start()
        return change

    def _fail_to_start(self) -> None:
        """The message that says why is on the bus already, if there is one."""
        while self._code is None and (message := self._bus.pop()) is not None:
            self._handle(message)
        if self._code is None:
            show_line("posesdk: error: the pipeline does not start, and no element says why; set GST_DEBUG=3", err=True)
            self._code = FAILURE

    def _play(self) -> None:
        if self._set_state(Gst.State.PLAYING) != Gst.StateChangeReturn.FAILURE and self._playing_since is None:
            self._playing_since = time.monotonic()

    def _handle(self, message: Any) -> None:
        handler = self._handlers.get(message.type)
        if handler is not None:
            handler(message)

    def _look_at_time_and_signals(self, interrupts: int) -> None:
        if interrupts > self._interrupts:
            self._interrupts = interrupts
            self._end(INTERRUPTED, "interrupted")
        if self._ending is not None and self._code is None and time.monotonic() > self._ending[1]:
            show_line("posesdk: warning: the end of the stream did not reach every sink in time", err=True)
            self._code = self._ending[0]

    def _end(self, code: int, why: str) -> None:
        """Ends the run; with --eos-on-shutdown once the sinks have seen the end, so that they can finish files."""
        if self._ending is not None or not self._options.eos_on_shutdown or self._playing_since is None:
            self._code = code if self._ending is None else self._ending[0]
            self._say(why)
            return
        self._say(f"{why}: waiting for the end of the stream (Ctrl-C again to stop at once)")
        self._ending = (code, time.monotonic() + (LONGEST_END if code == INTERRUPTED else LONGEST_END_OF_REST))
        self._pipeline.send_event(Gst.Event.new_eos())

    def _on_eos(self, message: Any) -> None:
        ran = 0.0 if self._playing_since is None else time.monotonic() - self._playing_since
        self._say(f"end of stream after {ran:.2f} s")
        self._code = 0 if self._ending is None else self._ending[0]

    def _on_error(self, message: Any) -> None:
        report(message, verbose=self._options.verbose)
        if self._ending is None:  # what follows from the first one, or from the end itself, ends nothing
            self._end(exit_code(message), "stopped by an error")

    def _on_warning(self, message: Any) -> None:
        report(message, verbose=self._options.verbose)

    def _on_prerolled(self, message: Any) -> None:
        if self._playing_since is None and not self._buffering:
            self._play()

    def _on_buffering(self, message: Any) -> None:
        """A live source cannot wait; any other one rests until its queue is full again."""
        if self._live:
            return
        filling = message.parse_buffering() < 100
        if filling and not self._buffering:
            self._set_state(Gst.State.PAUSED)
        elif not filling and self._buffering:
            self._play()
        self._buffering = filling

    def _on_clock_lost(self, message: Any) -> None:
        self._set_state(Gst.State.PAUSED)
        self._play()

    def _on_element(self, message: Any) -> None:
        structure = message.get_structure()
        if structure.get_name() == "missing-plugin":
            report_plugin_missing(structure)
        elif self._options.messages:
            show_line(f"{message.src.get_name()}: {structure.to_string()}")

    def _on_property(self, message: Any) -> None:
        origin, name, value = message.parse_property_notify()
        text = value.to_string() if hasattr(value, "to_string") else value
        show_line(f"{origin.get_path_string()}: {name} = {text}", err=True)

    def _say(self, text: str) -> None:
        if not self._options.quiet:
            show_line(f"posesdk: {text}", err=True)
