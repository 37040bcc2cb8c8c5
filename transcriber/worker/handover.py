"""Another engine in place of the one at work: loaded and measured beside it, without a window waiting for that."""

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
    from transcriber.worker.warmup import Warm

log = logging.getLogger(__name__)

_PATIENCE_SECS = 10.0  # in which passes give way to windows: some dozens of them; a worker with no rest is overloaded
_LOOK_SECS = 0.01  # between two looks whether the worker is idle; a window takes ten times that


class ModelHandover:
    """One try. `load` runs on a thread of its own, which has the new model until the worker takes it, and then the old.

    The CPU is shared meanwhile. Loading takes one thread. A pass over `speech` begins while no window waits or runs and
    is stopped when one comes, as partials are, so that neither slows the other down; only when ten seconds have no room
    for it does it compete. The quickest pass counts: what comes between makes a pass longer, never shorter.
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
        self._given_up = threading.Event()
        self._stop = Stop()  # of the pass that runs
        self._decided = threading.Event()  # it has taken over, or was given up
        self._before: Engine | None = None  # when it has taken over
        self._patient_until = 0.0

    async def run(self) -> Warm:
        """Load, measure, take over between two jobs. Raises what `load` raises, `EngineError`, `Stopped`."""
        return await on_thread(self._run, "successor")

    def give_up(self) -> None:
        """End it as soon as may be; unless it has taken over already, the engine at work stays."""
        self._given_up.set()
        self._stop.ask()
        self._decided.set()

    def _run(self) -> Warm:
        try:
            return self._succeed()
        except TranscriberError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the engine at work goes on
            reason = f"{type(error).__name__}: {error}"
        raise EngineError(reason)  # out here without its cause, whose frames would keep the model in memory

    def _succeed(self) -> Warm:
        self._check()
        engine = self._load()
        try:
            ready = self._measure(engine)
            after = PendingHandover(self._capacity(ready.rtf), ready.pace, engine.work, partial(self._take_over, ready))
            if self._queue.announce(after):
                self._decided.wait()
                self._queue.announce(None)  # from here on it has taken over or never will
            if self._before is None:
                raise Stopped("the daemon is stopping")
        finally:
            (self._before or engine).close()
        return ready

    def _take_over(self, ready: Warm) -> None:
        self._before = self._worker.exchange(ready)
        self._decided.set()

    def _measure(self, engine: Engine) -> Warm:
        self._patient_until = time.monotonic() + _PATIENCE_SECS
        quickest = warmup.measure(lambda: self._pass(engine))[0]
        return warmup.warm(engine, self._speech, warmup.rtf_of(quickest, self._speech))

    def _pass(self, engine: Engine) -> float:
        """One whole pass, tried until there is one."""
        while True:
            self._check()
            patient = time.monotonic() < self._patient_until
            if patient and self._queue.depth:
                self._given_up.wait(_LOOK_SECS)
                continue
            try:
                with self._queue.giving_way() if patient else nullcontext(Stop()) as self._stop:
                    self._check()
                    return warmup.timed(engine, self._speech, self._stop)
            except Stopped:
                log.debug("a measuring pass gave way to a window")

    def _check(self) -> None:
        if self._given_up.is_set():
            raise Stopped("the daemon is stopping")
