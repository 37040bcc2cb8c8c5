"""Replaces the engine. The new one is loaded and measured next to the old one, and no window waits for it."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from transcriber.domain.errors import EngineError, Stopped, TranscriberError
from transcriber.threads import on_thread
from transcriber.worker import warmup
from transcriber.worker.cancellation import Stop
from transcriber.worker.queue import JobQueue, PendingHandover

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from transcriber.worker.engine import Engine
    from transcriber.worker.thread import WhisperThread
    from transcriber.worker.warmup import MeasuredEngine

log = logging.getLogger(__name__)

_PATIENCE_SECS = 10.0  # so long passes give way to windows: a worker that is busy all that time is overloaded
_LOOK_SECS = 0.01  # between two checks whether the worker is idle; a window takes ten times that


class ModelHandover:
    """One handover. It loads and measures on a thread of its own, which owns the new engine until the worker takes it.

    Then that thread owns the old engine and closes it. Loading takes one CPU. A pass over `speech` begins while no
    window waits or runs, and is stopped when one comes, as partials are. So neither slows the other down. After ten
    seconds, passes compete with the windows. The quickest pass counts, because disturbances only lengthen passes.
    """

    def __init__(
        self,
        worker: WhisperThread,
        queue: JobQueue,
        load: Callable[[], Engine],
        speech: NDArray[np.float32],
        capacity: Callable[[float], int],
    ) -> None:
        self._worker = worker
        self._queue = queue
        self._load = load
        self._speech = speech
        self._capacity = capacity
        self._cancelled = threading.Event()
        self._stop = Stop()  # ends the pass that runs
        self._decided = threading.Event()  # replaced, or cancelled
        self._old: Engine | None = None  # the old engine, once it is replaced
        self._patient_until = 0.0

    async def run(self) -> MeasuredEngine:
        """Load, measure and replace the engine. Raises what `load` raises, `EngineError`, `Stopped`."""
        return await on_thread(self._run, "handover")

    def cancel(self) -> None:
        """End the handover as soon as possible. The old engine stays, unless it has been replaced already."""
        self._cancelled.set()
        self._stop.request()
        self._decided.set()

    def _run(self) -> MeasuredEngine:
        try:
            return self._hand_over()
        except TranscriberError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the old engine goes on
            reason = f"{type(error).__name__}: {error}"
        raise EngineError(reason)  # out here without its cause: its frames would keep the model in memory

    def _hand_over(self) -> MeasuredEngine:
        self._check()
        engine = self._load()
        try:
            ready = self._measure(engine)
            perform = partial(self._replace_engine, ready)
            if self._queue.schedule_handover(
                PendingHandover(self._capacity(ready.rtf), ready.speed, ready.costs, perform)
            ):
                self._decided.wait()
                self._queue.cancel_handover()  # from here on the engine is replaced or never will be
            if self._old is None:
                raise Stopped("the daemon is stopping")
        finally:
            (self._old or engine).close()
        return ready

    def _replace_engine(self, ready: MeasuredEngine) -> None:
        self._old = self._worker.replace_engine(ready)
        self._decided.set()

    def _measure(self, engine: Engine) -> MeasuredEngine:
        self._patient_until = time.monotonic() + _PATIENCE_SECS
        run = partial(self._pass, engine)
        return warmup.measured(engine, self._speech, run, self._worker.admission.max_latency, choose=min)

    def _pass(self, engine: Engine, count: int, quick: bool) -> float:
        """Seconds of one whole pass, begun again until one is not stopped."""
        while True:
            self._check()
            patient = time.monotonic() < self._patient_until
            if patient and self._queue.depth:
                self._cancelled.wait(_LOOK_SECS)
                continue
            try:
                with self._queue.preemptible() if patient else nullcontext(Stop()) as self._stop:
                    self._check()
                    return warmup.timed(engine, self._speech, count, self._stop, quick=quick)
            except Stopped:
                log.debug("a measuring pass gave way to a window")

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise Stopped("the daemon is stopping")
