"""The one thread that owns the model. Every call that blocks on Whisper is made here."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from transcriber.domain.errors import EngineError, Stopped, TranscriberError
from transcriber.domain.timeline import GapReason
from transcriber.threads import ThreadFuture, post
from transcriber.worker import memory, warmup
from transcriber.worker.admission import AdmissionControl
from transcriber.worker.cancellation import Stop
from transcriber.worker.costs import PassCosts
from transcriber.worker.decoding import decode_batch
from transcriber.worker.engine import Device
from transcriber.worker.jobs import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from transcriber.worker.admission import EngineSpeed
    from transcriber.worker.decoding import DecodedWindow
    from transcriber.worker.engine import Engine
    from transcriber.worker.jobs import Batch, Job
    from transcriber.worker.queue import JobQueue
    from transcriber.worker.warmup import MeasuredEngine

log = logging.getLogger(__name__)

_TIDY_SECS = 60.0  # malloc_trim takes a few milliseconds, which do not matter once a minute


class WhisperThread:
    """Loads the engine, measures it, then works through a queue. `replace_engine` gives it another engine.

    `load` runs on the thread, so the model belongs to it from the first byte. It calls each job's `deliver` once, on
    the event loop. It stops windows that are still in the engine L_max after the last of them was put, as their text
    would be late. It stops partials as soon as a window waits. How soon that ends the pass depends on the engine.
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
        self.costs = PassCosts()
        self.device = Device.CPU
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
        self.model, self.device, self.costs = engine.model, engine.device, new.costs
        self.multilingual = engine.multilingual
        self.admission.speed = new.speed
        return old

    @property
    def speed(self) -> EngineSpeed:
        return self.admission.speed

    @property
    def passes(self) -> dict[str, str | int | float]:
        """Device, most windows in a pass, and the measured cost of beam search, for the log."""
        return {"device": str(self.device), "batch": self.costs.most, "beam_cost": round(self.costs.beam, 2)}

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
        while (batch := self._queue.get()) is not None:
            assert self._engine is not None  # noqa: S101 - replace_engine() set it
            self._work(self._engine, batch, self._queue)
            del batch  # or this frame would keep its audio alive during the next wait
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

        def run(count: int, quick: bool) -> float:
            return warmup.timed(engine, self._speech, count, quick=quick)

        return warmup.measured(engine, self._speech, run, self.admission.max_latency, rtf=self._given_rtf)

    def _work(self, engine: Engine, batch: Batch, queue: JobQueue) -> None:
        """Decode a batch. Each job's outcome is delivered as soon as it is known."""
        begin = time.monotonic()
        jobs = [job for job in batch.jobs if job.partial or not self._dropped(job, batch, begin, queue)]
        if not jobs:
            return
        self._at_partial, self.busy_since = jobs[0].partial, begin
        outcomes: list[Outcome] = []
        for settled in self._passes(engine, jobs, queue, beam=batch.beam, begin=begin):
            outcomes += [outcome for _, outcome in settled]
            if len(outcomes) == len(jobs):
                self._ended(jobs, outcomes, beam=batch.beam, begin=begin)
            for job, outcome in settled:
                self._deliver(job, outcome, queue)

    def _passes(
        self, engine: Engine, jobs: Sequence[Job], queue: JobQueue, *, beam: bool, begin: float
    ) -> Iterator[list[tuple[Job, Outcome]]]:
        """Decode jobs together. Yields those that are done, after each pass. If a pass fails, each has one alone."""
        left = dict(enumerate(jobs))
        reason, detail = None, ""
        try:
            with queue.preemptible() if jobs[0].partial else nullcontext(self._limit(jobs)) as stop:
                windows = [job.window for job in jobs]
                may_repeat = partial(self._may_repeat, jobs, queue, beam=beam)
                for found in decode_batch(engine, windows, stop, may_repeat, quick=not beam):
                    settled = [(left.pop(place), decoded) for place, decoded in found.items()]
                    yield [(job, _decoded(job, begin, decoded)) for job, decoded in settled]
        except Stopped as stopped:
            reason, detail = None if jobs[0].partial else GapReason.DEADLINE, str(stopped)
        except Exception as error:  # noqa: BLE001 - one bad window must not stop the stream; it becomes a gap
            # Only the text: the traceback would hold the frame, and with it the audio.
            reason = GapReason.ENGINE_ERROR
            detail = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
        if reason is GapReason.ENGINE_ERROR and len(left) > 1:
            log.warning("a pass over %d windows failed, so each has one of its own: %s", len(left), detail)
            for job in left.values():
                yield from self._passes(engine, [job], queue, beam=beam, begin=begin)
        elif left:
            yield [(job, _undone(job, begin, reason, detail)) for job in left.values()]

    def _ended(self, jobs: Sequence[Job], outcomes: Sequence[Outcome], *, beam: bool, begin: float) -> None:
        """Take the time of a batch into the speed. Stopped windows count with the time that they had.

        A second pass adds time but no work. Waiting windows are weighed with one pass each, so the speed has to include
        the second passes that some of them will need. A failed pass says nothing about the speed.
        """
        processing = time.monotonic() - begin
        self.busy_since = None
        if self._at_partial:
            return
        self._finished_seconds += processing
        if all(outcome.reason is not GapReason.ENGINE_ERROR for outcome in outcomes):
            work = self._pass_work(jobs) * (self.costs.beam if beam else 1.0)
            self.admission.measured(work, processing, sum(job.window.seconds for job in jobs))

    def _dropped(self, job: Job, batch: Batch, begin: float, queue: JobQueue) -> bool:
        """Drop a window that would be late."""
        waited, work = begin - job.enqueued, self._pass_work(batch.jobs)
        if not self.admission.late(waited, work):
            return False
        detail = f"waited {waited:.1f} s, needs {self.speed.expected(work):.1f} s more"
        self._deliver(job, job.dropped(GapReason.DEADLINE, detail, waited), queue)
        return True

    def _deliver(self, job: Job, outcome: Outcome, queue: JobQueue) -> None:
        queue.done(job)
        post(self._loop, job.deliver, outcome)

    def _pass_work(self, jobs: Sequence[Job]) -> float:
        return self.costs.together([self.costs.weigh(job.samples) for job in jobs])

    def _limit(self, jobs: Sequence[Job]) -> Stop:
        """A stop request that is made at the deadline of the last job."""
        stop = Stop()
        latest = max(job.enqueued for job in jobs)
        post(self._loop, self._set_alarm, latest + self.admission.max_latency, stop)
        return stop

    def _set_alarm(self, deadline: float, stop: Stop) -> None:
        """Runs on the event loop. Cancels the last batch's alarm."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(deadline, stop.request)

    def _may_repeat(
        self, jobs: Sequence[Job], queue: JobQueue, places: Sequence[int], works: Sequence[float], *, beam: bool
    ) -> bool:
        """Whether these windows and all waiting ones stay in time with one more pass over them."""
        if self._at_partial:
            return False
        needed = self.speed.at_most(self.costs.together(works) * (self.costs.beam if beam else 1.0))
        deadline = min(jobs[place].enqueued for place in places) + self.admission.max_latency
        return time.monotonic() + needed <= deadline and needed <= queue.spare


def _decoded(job: Job, begin: float, decoded: DecodedWindow) -> Outcome:
    return Outcome(
        window=job.window,
        recognition=decoded.recognition,
        reason=None,
        detail="",
        enqueued=job.enqueued,
        queued=begin - job.enqueued,
        processing=time.monotonic() - begin,
        passes=decoded.passes,
    )


def _undone(job: Job, begin: float, reason: GapReason | None, detail: str) -> Outcome:
    return Outcome(
        window=job.window,
        recognition=None,
        reason=reason,
        detail=detail,
        enqueued=job.enqueued,
        queued=begin - job.enqueued,
        processing=time.monotonic() - begin,
    )
