"""The one thread that owns the model. Every call that blocks on Whisper is made here."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from transcriber.domain.errors import EngineError, Stopped, TranscriberError
from transcriber.domain.timeline import GapReason
from transcriber.threads import ThreadFuture, post
from transcriber.worker import memory, warmup
from transcriber.worker.admission import AdmissionControl, EngineSpeed
from transcriber.worker.cancellation import Stop
from transcriber.worker.decoding import decode
from transcriber.worker.jobs import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from transcriber.worker.engine import Engine
    from transcriber.worker.jobs import Job
    from transcriber.worker.queue import JobQueue
    from transcriber.worker.warmup import MeasuredEngine

log = logging.getLogger(__name__)

_TIDY_SECS = 60.0  # malloc_trim takes a few milliseconds, which do not matter once a minute


class WhisperThread:
    """Loads the engine, measures it, then works through a queue. `replace_engine` gives it another engine.

    `load` runs on the thread, so the model belongs to it from the first byte. It calls each job's `deliver` once, on
    the event loop. It stops a window that is still in the engine L_max after it was put, as its text would be late.
    It stops a partial as soon as a window waits.
    """

    def __init__(self, load: Callable[[], Engine], max_latency: float) -> None:
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._queue: JobQueue | None = None
        self._engine: Engine | None = None
        self._serve = threading.Event()
        self._thread = threading.Thread(target=self._run, name="whisper", daemon=True)
        self._measured = ThreadFuture[float]()
        self.finished = asyncio.Event()
        self.model = ""
        self.multilingual = False
        self.admission = AdmissionControl(max_latency)
        self.partial_speed = EngineSpeed()
        self.weigh: Callable[[int], float] = float
        self._finished_seconds = 0.0
        self.busy_since: float | None = None  # monotonic; None while idle
        self._at_partial = False
        self._tidied = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    async def start(self, speech: NDArray[np.float32], rtf: float | None = None) -> float:
        """Load the engine and measure its RTF on `speech` (float32 mono 16 kHz, one full window).

        Returns the RTF. When `rtf` is given, returns that after one pass as the warm-up.
        """
        self._speech, self._given_rtf = speech, rtf
        self._thread.start()
        return await self._measured.future

    def serve(self, queue: JobQueue) -> None:
        """Start to work. When the queue is closed and empty, the thread ends and sets `finished`."""
        self._queue = queue
        self._serve.set()

    def replace_engine(self, new: MeasuredEngine) -> Engine | None:
        """Use another engine from the next job on. Returns the old one, which the caller must close.

        Only the queue may call this, between two jobs.
        """
        engine, old = new.engine, self._engine
        self._engine = engine
        self.model, self.weigh, self.multilingual = engine.model, engine.work, engine.multilingual
        self.partial_speed = self.admission.speed = new.speed
        return old

    @property
    def speed(self) -> EngineSpeed:
        return self.admission.speed

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def busy_seconds(self) -> float:
        """How long the engine has run for windows so far, including the one that is running.

        Partials do not count: windows preempt them, so they take no capacity.
        """
        since = None if self._at_partial else self.busy_since
        return self._finished_seconds + (time.monotonic() - since if since is not None else 0.0)

    def _run(self) -> None:
        try:
            engine = self._load()
            measured = self._measure(engine)
            self.replace_engine(measured)
        except Exception as error:  # noqa: BLE001 - whatever it is, `start` raises it
            cause = error if isinstance(error, TranscriberError) else EngineError(f"{type(error).__name__}: {error}")
            self._measured.settle(cause)
            return
        self._measured.settle(measured.rtf)
        del engine, measured  # or this frame would keep the engine alive after it is replaced
        self._serve.wait()
        assert self._queue is not None  # noqa: S101 - serve() set it
        while (job := self._queue.get()) is not None:
            assert self._engine is not None  # noqa: S101 - replace_engine() set it
            outcome = self._work(self._engine, job, self._queue)
            self._queue.done()
            post(self._loop, job.deliver, outcome)
            del job, outcome  # or this frame would keep their audio alive during the next wait
            self._tidy(self._queue)
        post(self._loop, self.finished.set)

    def _tidy(self, queue: JobQueue) -> None:
        """Return freed memory to the system now and then, after a job, while none waits: a long queue held much."""
        now = time.monotonic()
        if now - self._tidied >= _TIDY_SECS and not queue.waiting:
            self._tidied = now
            memory.trim_heap()

    def _measure(self, engine: Engine) -> MeasuredEngine:
        """Run the engine on the speech. The median pass gives its RTF, unless one was given."""
        passes = 0 if self._given_rtf else warmup.PASSES
        took = warmup.measure(lambda: warmup.timed(engine, self._speech), passes)
        rtf = self._given_rtf or warmup.rtf_of(took[len(took) // 2], self._speech)
        return warmup.measured(engine, self._speech, rtf)

    def _work(self, engine: Engine, job: Job, queue: JobQueue) -> Outcome:
        begin = time.monotonic()
        queued = begin - job.enqueued
        if not job.partial and self.admission.late(queued, self.weigh(job.samples)):
            detail = f"waited {queued:.1f} s, needs {self.speed.expected(self.weigh(job.samples)):.1f} s more"
            return job.dropped(GapReason.DEADLINE, detail, queued)
        self._at_partial = job.partial
        self.busy_since = begin
        recognition, reason, detail, passes = None, None, "", 1
        try:
            with queue.preemptible() if job.partial else nullcontext(self._limit(job)) as stop:
                may_repeat = partial(self._may_repeat, job, queue)
                recognition, passes = decode(engine, job.window, stop, may_repeat)
        except Stopped as stopped:
            reason, detail = None if job.partial else GapReason.DEADLINE, str(stopped)
        except Exception as error:  # noqa: BLE001 - one bad window must not stop the stream; it becomes a gap
            # Only the text: the traceback would hold the frame, and with it the audio.
            reason = GapReason.ENGINE_ERROR
            detail = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
        processing = time.monotonic() - begin
        self.busy_since = None
        self._finished_seconds += 0.0 if job.partial else processing
        if reason is not GapReason.ENGINE_ERROR:  # a failed pass says nothing about the speed
            self._measured_job(job, processing, done=recognition is not None)
        return Outcome(
            window=job.window,
            recognition=recognition,
            reason=reason,
            detail=detail,
            enqueued=job.enqueued,
            queued=queued,
            processing=processing,
            passes=passes,
        )

    def _limit(self, job: Job) -> Stop:
        """A stop request that is made at the job's deadline."""
        stop = Stop()
        post(self._loop, self._set_alarm, job.enqueued + self.admission.max_latency, stop)
        return stop

    def _set_alarm(self, deadline: float, stop: Stop) -> None:
        """Runs on the event loop. Cancels the last job's alarm."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(deadline, stop.request)

    def _may_repeat(self, job: Job, queue: JobQueue, work: float) -> bool:
        """Whether this window and all waiting ones stay in time with so much more work."""
        if job.partial:
            return False
        needed = self.speed.at_most(work)
        in_time = time.monotonic() + needed <= job.enqueued + self.admission.max_latency
        return in_time and needed <= queue.spare

    def _measured_job(self, job: Job, processing: float, *, done: bool) -> None:
        """Take a job's time into the speed. A stopped window counts with the time it had, as it needs at least that.

        A second pass adds time but no work. Waiting windows are weighed with one pass each, so the speed has to include
        the second passes that some of them will need.
        """
        work = self.weigh(job.samples)
        if not job.partial:
            self.admission.measured(work, processing, job.window.seconds)
        elif done:
            self.partial_speed = self.partial_speed.after(work, processing, job.window.seconds)
