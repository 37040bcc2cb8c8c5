"""The one thread that owns the model: every call that blocks on Whisper is made here."""

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
from transcriber.threads import Answer, post
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
    from transcriber.worker.warmup import Warm

log = logging.getLogger(__name__)

_TIDY_SECS = 60.0  # malloc_trim took 1 to 3 ms in a daemon of 170 MB: nothing, once a minute


class WhisperThread:
    """Loads the engine, measures it, then works through a queue; `exchange` gives it another one.

    `load` runs on the thread, so that the model belongs to it from the first byte. The `deliver` of each job that was
    got is called once, on the event loop. A window still in the engine L_max after it was put is stopped: nobody may
    have its text any more. A partial is stopped as soon as a window waits.
    """

    def __init__(self, load: Callable[[], Engine], max_latency: float) -> None:
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._queue: JobQueue | None = None
        self._engine: Engine | None = None
        self._serve = threading.Event()
        self._thread = threading.Thread(target=self._run, name="whisper", daemon=True)
        self._measured = Answer[float]()
        self.finished = asyncio.Event()
        self.model = ""
        self.admission = AdmissionControl(max_latency)
        self.partial_pace = EngineSpeed()
        self.weigh: Callable[[int], float] = float
        self._finished_seconds = 0.0
        self.busy_since: float | None = None  # monotonic; None while idle
        self._at_partial = False
        self._tidied = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    async def start(self, speech: NDArray[np.float32], rtf: float | None = None) -> float:
        """Load the engine and measure its RTF on `speech` (float32 mono 16 kHz, one full window).

        Returns the RTF, or `rtf` when that is given; then one pass still runs, as the warm-up.
        """
        self._speech, self._given_rtf = speech, rtf
        self._thread.start()
        return await self._measured.future

    def serve(self, queue: JobQueue) -> None:
        """Start to work; the thread ends when the queue is closed and empty, and `finished` is set."""
        self._queue = queue
        self._serve.set()

    def exchange(self, successor: Warm) -> Engine | None:
        """Work with another engine from the next job on; returns the one so far, which is the caller's to close.

        To be called by the queue alone, between two jobs.
        """
        engine, before = successor.engine, self._engine
        self._engine = engine
        self.model, self.weigh = engine.model, engine.work
        self.partial_pace = self.admission.pace = successor.pace
        return before

    @property
    def pace(self) -> EngineSpeed:
        return self.admission.pace

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def busy_seconds(self) -> float:
        """How long the engine has run for windows so far, the one that is in it included.

        Partials do not count: they give way, so they say nothing about how much more the engine could do.
        """
        since = None if self._at_partial else self.busy_since
        return self._finished_seconds + (time.monotonic() - since if since is not None else 0.0)

    def _run(self) -> None:
        try:
            engine = self._load()
            warm = self._measure(engine)
            self.exchange(warm)
        except Exception as error:  # noqa: BLE001 - whatever stops the start is reported there, as its cause
            cause = error if isinstance(error, TranscriberError) else EngineError(f"{type(error).__name__}: {error}")
            self._measured.give(cause)
            return
        self._measured.give(warm.rtf)
        del engine, warm  # another one may take its place: nothing here must keep it alive
        self._serve.wait()
        assert self._queue is not None  # noqa: S101 - serve() set it
        while (job := self._queue.get()) is not None:
            assert self._engine is not None  # noqa: S101 - exchange() set it
            outcome = self._work(self._engine, job, self._queue)
            self._queue.done()
            post(self._loop, job.deliver, outcome)
            del job, outcome  # or the next wait would keep their audio alive
            self._tidy(self._queue)
        post(self._loop, self.finished.set)

    def _tidy(self, queue: JobQueue) -> None:
        """Give back what the queue held at its longest: now and then, after a job, when nobody waits."""
        now = time.monotonic()
        if now - self._tidied >= _TIDY_SECS and not queue.waiting:
            self._tidied = now
            memory.give_back()

    def _measure(self, engine: Engine) -> Warm:
        """Run it on the speech; the median pass tells its RTF unless that is given."""
        passes = 0 if self._given_rtf else warmup.PASSES
        took = warmup.measure(lambda: warmup.timed(engine, self._speech), passes)
        rtf = self._given_rtf or warmup.rtf_of(took[len(took) // 2], self._speech)
        return warmup.warm(engine, self._speech, rtf)

    def _work(self, engine: Engine, job: Job, queue: JobQueue) -> Outcome:
        begin = time.monotonic()
        queued = begin - job.enqueued
        if not job.partial and self.admission.late(queued, self.weigh(job.samples)):
            detail = f"waited {queued:.1f} s, needs {self.pace.expected(self.weigh(job.samples)):.1f} s more"
            return job.dropped(GapReason.DEADLINE, detail, queued)
        self._at_partial = job.partial
        self.busy_since = begin
        recognition, reason, detail, passes = None, None, "", 1
        try:
            with queue.giving_way() if job.partial else nullcontext(self._limit(job)) as stop:
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
        if reason is not GapReason.ENGINE_ERROR:  # a failure says nothing about the speed
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
        """What asks for the job's end at its deadline."""
        stop = Stop()
        post(self._loop, self._set_alarm, job.enqueued + self.admission.max_latency, stop)
        return stop

    def _set_alarm(self, deadline: float, stop: Stop) -> None:
        """On the event loop; the alarm of the job before is void."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(deadline, stop.ask)

    def _may_repeat(self, job: Job, queue: JobQueue, work: float) -> bool:
        """Whether so much more work leaves this window in time, and those that wait."""
        if job.partial:
            return False
        needed = self.pace.at_most(work)
        in_time = time.monotonic() + needed <= job.enqueued + self.admission.max_latency
        return in_time and needed <= queue.spare

    def _measured_job(self, job: Job, processing: float, *, done: bool) -> None:
        """Take a job's time. A window that was stopped counts with the time it had: it needs at least that.

        A second pass is time and not work: those that wait were weighed without it, and will have their share of them.
        """
        work = self.weigh(job.samples)
        if not job.partial:
            self.admission.measured(work, processing, job.window.seconds)
        elif done:
            self.partial_pace = self.partial_pace.after(work, processing, job.window.seconds)
