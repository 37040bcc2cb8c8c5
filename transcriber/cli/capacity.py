"""`transcriber capacity`: measures how many streams this machine can transcribe with the configured model."""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import TYPE_CHECKING, Any

from transcriber.cli.commands import note, write
from transcriber.daemon.reference import reference_speech
from transcriber.models import store
from transcriber.worker import capacity as queue_capacity
from transcriber.worker.engines.loading import load_engine
from transcriber.worker.queue import JobQueue
from transcriber.worker.thread import WhisperThread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transcriber.settings import Settings
    from transcriber.worker.engine import Decoded, Engine, Speech

# The share of its threads' time that the engine gets on an idle machine, and a margin. A smaller share means that
# other programs compete for the CPU. docs/performance.md has both measurements.
_BUSY_SHARE = 0.8


async def measure(options: argparse.Namespace, settings: Settings) -> None:
    """Measure this machine with the configured model, and print how many streams it can transcribe."""
    whisper, window = settings.whisper, settings.sessions.stream.window_secs
    store.verify(whisper.path, settings.model_sha256)
    note(f"measuring {whisper.path.name} with {_count(whisper.threads, 'thread')} ...")
    engines: list[_Watched] = []

    def load() -> _Watched:
        engines.append(_Watched(load_engine(whisper), whisper.threads))
        return engines[0]

    worker = WhisperThread(load, settings.max_latency)
    rtf = await worker.start(reference_speech(window), settings.rtf)
    served = JobQueue(1)
    served.close()
    worker.serve(served)  # the queue is closed: the thread ends, and does so before the interpreter
    await worker.finished.wait()
    derived = queue_capacity.derive(settings.max_latency, window, rtf)
    if settings.queue_capacity is not None:
        derived = queue_capacity.given(settings.queue_capacity, derived)
    most = worker.costs.most
    source = "WHISPER_RTF" if settings.rtf else f"{rtf * window * 1000:.0f} ms for a full window{_batched(most)}"
    used, count = options.utilisation, options.streams
    carried, needed = queue_capacity.streams(rtf, used), queue_capacity.workers(count, rtf, used)
    lines = (
        ("model", f"{worker.model}, {_count(whisper.threads, 'thread')}, windows of {window:g} s"),
        ("RTF", f"{rtf:.4f} ({source})"),
        ("queue", str(derived)),
        ("one worker", f"{_count(carried, 'stream')} of speech without pauses at {used:.0%} utilisation"),
        (_count(count, "stream"), f"{_count(needed, 'worker')} = ceil({count} x {rtf:.4f} / {used:g})"),
    )
    write("\n".join(f"{name:12} {text}" for name, text in lines))
    if (share := median(engines[0].shares)) < _BUSY_SHARE and not settings.rtf:
        note(f"the machine was busy: the engine got {share:.0%} of its threads' time; measure again when it is idle")


class _Watched:
    """An engine that records, for each pass, the share of its threads' time that it got."""

    def __init__(self, engine: Engine, threads: int) -> None:
        self._engine, self._threads = engine, threads
        self.model, self.device, self.work, self.close = engine.model, engine.device, engine.work, engine.close
        self.beams, self.batch_sizes, self.transcribe = engine.beams, engine.batch_sizes, engine.transcribe
        self.multilingual, self.workers = engine.multilingual, engine.workers
        self.shares: list[float] = []

    def transcribe_many(
        self,
        speech: Sequence[Speech],
        *arguments: Any,  # noqa: ANN401 - what the engine takes
        **named: Any,  # noqa: ANN401
    ) -> list[Decoded]:
        began, cpu = time.monotonic(), time.process_time()
        decoded = self._engine.transcribe_many(speech, *arguments, **named)
        used = self._threads // self.workers * min(self.workers, len(speech))
        self.shares.append((time.process_time() - cpu) / (time.monotonic() - began) / used)
        return decoded


def _batched(most: int) -> str:
    return f", {most} in a pass" if most > 1 else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
