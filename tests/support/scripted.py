"""A stand-in engine that does what a script says, and a thread around it."""

from __future__ import annotations

import asyncio
import math
import threading
import time

import numpy as np

from transcriber.domain.errors import Stopped
from transcriber.domain.results import Segment
from transcriber.domain.timeline import Origin, Window
from transcriber.worker.cancellation import Stop
from transcriber.worker.engine import Decoded
from transcriber.worker.jobs import Outcome
from transcriber.worker.queue import JobQueue
from transcriber.worker.thread import WhisperThread

SPEECH = np.zeros(16_000, np.float32)


class Scripted:
    """A stand-in engine: every call does what `script` says next, then goes on with the last entry.

    `math.inf` seconds last until it is told to stop.
    """

    model = "scripted"
    multilingual = False

    def __init__(self, *script: float | Exception) -> None:
        self.script = list(script)
        self.threads: set[str] = set()
        self.may_go = threading.Event()
        self.may_go.set()
        self.attempts: list[int] = []
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
        **_options: object,
    ) -> Decoded:
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
        text = self.texts[attempt] or f"{len(samples)}"
        return Decoded(
            (Segment(text=text, start=0, end=len(samples), confidence=self.confidences[attempt]),), language or "en"
        )


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


async def started(
    engine: Scripted, max_latency: float = 20, capacity: int = 10, rtf: float = 0.01
) -> tuple[WhisperThread, JobQueue]:
    thread = WhisperThread(lambda: engine, max_latency)
    await thread.start(SPEECH, rtf=rtf)
    queue = JobQueue(capacity, thread.admission, thread.weigh)
    thread.serve(queue)
    return thread, queue
