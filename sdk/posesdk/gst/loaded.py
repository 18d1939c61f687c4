"""A loaded model with the thread that runs it."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from posesdk.arguments import check_counts
from posesdk.detector import Detector
from posesdk.gst.mailbox import Job, Worker
from posesdk.poses import Poses
from posesdk.video import Frame

__all__ = ["LoadedModel", "ModelSettings", "batch_limit", "load_model"]

MOST_FRAMES = 8
"""Of a batch on a device that is faster with several; bounds the memory of the maps and of the adaptation."""
WARM_UP_SIZE = (720, 1280)
"""Height and width of the black frame that a model runs first; most streams are 16:9, so of its net size."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How a model is loaded: the arguments of `Detector`, "" for the default model.

    `batch` is the most frames of different clients that run at once; None decides by the device, see `batch_limit`.
    """

    model: str = ""
    runtime: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    variant: str = "auto"
    threads: int | None = None
    flip_test: bool | None = None
    batch: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A detector, its worker, and the time of its first run in ms."""

    detector: Detector
    worker: Worker
    warm_up_ms: float

    def submit(
        self, client: object, frame: Frame, *, score_threshold: float | None, max_people: int
    ) -> "Future[Poses]":
        """Puts a frame into the client's slot. Frames of one net size and the same settings may go into one batch."""
        size = self.detector.net_size((frame.image.shape[0], frame.image.shape[1]))
        job = Job(frame, (size, score_threshold, max_people))
        self.worker.submit(client, job)
        return job.future


def load_model(settings: ModelSettings) -> LoadedModel:
    """Opens a model, runs it once and starts its thread; the worker's `close` frees it. Raises what `Detector` does."""
    check_counts(batch=settings.batch)
    with ExitStack() as opened:
        detector = opened.enter_context(
            Detector(
                settings.model or None,
                runtime=settings.runtime,
                device=settings.device,
                precision=settings.precision,
                variant=settings.variant,
                threads=settings.threads,
                flip_test=settings.flip_test,
            )
        )
        start = time.perf_counter()
        detector.detect_all(np.zeros((*WARM_UP_SIZE, 3), np.uint8))  # all: black has no people for the second graph
        warm_up_ms = (time.perf_counter() - start) * 1e3
        limit = batch_limit(detector) if settings.batch is None else settings.batch

        def detect(jobs: Sequence[Job]) -> list[Poses]:
            _, score_threshold, max_people = jobs[0].key
            adjusted = detector.adjusted(score_threshold=score_threshold, max_people=max_people)
            return adjusted.detect_batch([job.frame for job in jobs])

        model = LoadedModel(
            detector, Worker(detect, detector.close, batch=limit, name=f"posesdk {detector.info.model}"), warm_up_ms
        )
        opened.pop_all()
    return model


def batch_limit(detector: Detector) -> int:
    """Most frames to run at once: 8 on an accelerator, 1 on a CPU and for a graph that takes only one.

    A batch of four 720p frames takes 0.85 to 0.97 of the time of the four one by one on 2 cores of an AMD EPYC with
    AVX512-VNNI, shared (benchmarks/batch_time.py: nano, ONNX Runtime and OpenVINO, float and int8). But each stream
    then waits for the whole batch, where one by one it waits for one frame, newer by then. On accelerators neither
    has been measured.
    """
    return MOST_FRAMES if detector.takes_batches and detector.info.device != "cpu" else 1
