"""A stand-in engine that does what a script says, and a thread around it."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence

import numpy as np

from transcriber.domain.errors import Stopped
from transcriber.domain.results import Segment
from transcriber.domain.timeline import Origin, Window
from transcriber.worker.cancellation import Stop
from transcriber.worker.engine import Decoded, Device, Speech
from transcriber.worker.jobs import Job, Outcome
from transcriber.worker.queue import JobQueue
from transcriber.worker.thread import WhisperThread

SPEECH = np.zeros(16_000, np.float32)


class Scripted:
    """A stand-in engine: every call does what `script` says next, then goes on with the last entry.

    `math.inf` seconds last until it is told to stop.
    """

    model = "scripted"
    device = Device.CPU
    multilingual = False
    beams = False
    batch_sizes: tuple[int, ...] = (1,)
    workers = 1

    def __init__(self, *script: float | Exception) -> None:
        self.script = list(script)
        self.threads: set[str] = set()
        self.may_go = threading.Event()
        self.may_go.set()
        self.attempts: list[int] = []  # of each pass
        self.passes: list[int] = []  # windows of each pass
        self.quick: list[bool] = []
        self.texts = ["", "", ""]  # of each attempt; "": the window's length
        self.confidences = [0.9, 0.9, 0.9]
        self.endless = threading.Event()  # a pass that ends only when it is told to has begun

    def work(self, samples: int, *, attempt: int = 0) -> float:
        return samples / 16_000 * (1, 2, 3)[attempt]

    def transcribe(
        self,
        samples: np.ndarray,
        language: str | None,
        stop: Stop | None = None,
        *,
        attempt: int = 0,
        quick: bool = False,
    ) -> Decoded:
        return self.transcribe_many([Speech(samples, language)], stop, attempt=attempt, quick=quick)[0]

    def transcribe_many(
        self, speech: Sequence[Speech], stop: Stop | None = None, *, attempt: int = 0, quick: bool = False
    ) -> list[Decoded]:
        self.passes.append(len(speech))
        self.quick.append(quick)
        self.attempts.append(attempt)
        self.threads.add(threading.current_thread().name)
        self.may_go.wait(10)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        while step == math.inf and stop is not None:
            self.endless.set()
            if stop.requested():
                raise Stopped("stopped")
            time.sleep(0.001)
        time.sleep(step)
        return [self._decoded(len(window.samples), window.language, attempt) for window in speech]

    def _decoded(self, length: int, language: str | None, attempt: int) -> Decoded:
        text = self.texts[attempt] or f"{length}"
        segment = Segment(text=text, start=0, end=length, confidence=self.confidences[attempt])
        return Decoded((segment,), language or "en")


class Collector:
    """Takes outcomes on the event loop."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self._news = asyncio.Event()

    def __call__(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._news.set()

    async def have(self, count: int) -> list[Outcome]:
        async with asyncio.timeout(10):
            while len(self.outcomes) < count:
                self._news.clear()
                await self._news.wait()
        return self.outcomes


def window(sequence: int, samples: int = 16_000, stream: str = "s") -> Window:
    return Window(
        origin=Origin(stream, "x"), sequence=sequence, start=0, end=samples, samples=np.zeros(samples, np.float32)
    )


def take(queue: JobQueue) -> Job | None:
    """The next job of a queue that gives out one at a time; None at its end."""
    batch = queue.get()
    if batch is None:
        return None
    (job,) = batch.jobs
    return job


def finish(queue: JobQueue) -> None:
    """Finish all running jobs."""
    for job in queue._running:
        queue.done(job)


async def started(
    engine: Scripted, max_latency: float = 20, capacity: int = 10, rtf: float = 0.01
) -> tuple[WhisperThread, JobQueue]:
    thread = WhisperThread(lambda: engine, max_latency)
    await thread.start(SPEECH, rtf=rtf)
    queue = JobQueue(capacity, thread.admission, thread.costs)
    thread.serve(queue)
    return thread, queue
