"""One scenario, measured: builds the pipelines, lets cameras feed them, and reads the probes."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import posesdk.gst
from gst_measure.alone import detector_alone
from gst_measure.camera import FPS, Camera, load_pictures, source_launch
from gst_measure.pipelines import start, wait_for_end
from gst_measure.probes import StreamProbe
from gst_measure.scenarios import Scenario
from gst_measure.served import served
from gst_measure.slow import slowed
from posesdk.gst.bindings import Gst

PATIENCE = 15
"""A pipeline that falls behind may take so many times longer than its camera."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line asks for; models of None are the default model."""

    seconds: float
    video: Path
    empty_video: Path
    slow_ms: float
    model: Path | None = None
    int8: Path | None = None


def measure(scenario: Scenario, settings: Settings) -> dict[str, Any]:
    """Runs a scenario in this process; an error on a bus ends it."""
    posesdk.gst.register()
    if scenario.alone:
        return detector_alone(
            settings.empty_video, settings.seconds, settings.int8 if scenario.int8 else settings.model
        )
    with ExitStack() as stack:
        if scenario.slow:
            stack.enter_context(slowed(settings.slow_ms))
        if scenario.rtsp:
            return _from_network(scenario, settings, stack.enter_context(served(settings.video, settings.seconds)))
        return _from_memory(scenario, settings)


def _from_memory(scenario: Scenario, settings: Settings) -> dict[str, Any]:
    pictures = load_pictures(settings.empty_video if scenario.empty else settings.video)
    count, streams = round(settings.seconds * FPS), scenario.streams
    pipelines = [Gst.parse_launch(_launch(scenario, settings, source_launch("camera"))) for _ in range(streams)]
    probes = [StreamProbe(one.get_by_name("pose"), one.get_by_name("sink")) for one in pipelines]
    for pipeline in pipelines:
        start(pipeline)
    sources = [one.get_by_name("camera") for one in pipelines]
    cameras = [Camera(source, pictures, count, index / streams) for index, source in enumerate(sources)]
    with _processor_time() as used:
        for camera in cameras:
            camera.start()
        for pipeline in pipelines:
            wait_for_end(pipeline, settings.seconds * PATIENCE)
    seen = [_seen(*one, count) for one in zip(pipelines, probes, strict=True)]
    return {"streams": seen, **used}


def _from_network(scenario: Scenario, settings: Settings, url: str) -> dict[str, Any]:
    source = f"rtspsrc location={url} protocols=tcp latency=200 ! decodebin ! videoconvert"
    pipeline = Gst.parse_launch(_launch(scenario, settings, source))
    probe = StreamProbe(pipeline.get_by_name("pose"), pipeline.get_by_name("sink"))
    with _processor_time() as used:
        start(pipeline)
        wait_for_end(pipeline, settings.seconds + 60)
    return {"streams": [_seen(pipeline, probe, round(settings.seconds * FPS))], **used}


def _launch(scenario: Scenario, settings: Settings, source: str) -> str:
    model = settings.int8 if scenario.int8 else settings.model
    element = f"{scenario.element or 'identity'} name=pose"
    if scenario.element and model is not None:
        element += f' model="{model}"'
    return f"{source} ! {scenario.before} {element} ! fakesink name=sink sync=false"


@contextmanager
def _processor_time() -> Iterator[dict[str, float]]:
    """Fills in how much of one core the process used."""
    used: dict[str, float] = {}
    cpu, began = time.process_time(), time.monotonic()
    yield used
    spent = time.process_time() - cpu
    used.update(cpu_s=round(spent, 2), cpu_percent=round(100 * spent / (time.monotonic() - began), 1))


def _seen(pipeline: Any, probe: StreamProbe, count: int) -> dict[str, Any]:
    """What a stream did; the pipeline has ended."""
    element = pipeline.get_by_name("pose")
    has_stats = element.find_property("stats") is not None and element.get_factory().get_name() == "logocappose"
    stats = json.loads(element.get_property("stats")) if has_stats else {}
    pipeline.set_state(Gst.State.NULL)
    return {"camera": count, **probe.summary(), "stats": stats}
