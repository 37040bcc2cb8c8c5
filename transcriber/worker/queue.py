"""A bounded queue between the event loop and the Whisper thread. Putting never blocks; streams take turns."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transcriber.domain.timeline import GapReason
from transcriber.worker.admission import AdmissionControl, EngineSpeed
from transcriber.worker.cancellation import Stop
from transcriber.worker.costs import PassCosts
from transcriber.worker.fairness import FairQueue
from transcriber.worker.jobs import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transcriber.worker.jobs import Job

# Beam search stops when the windows that wait would take more than this share of L_max with it: one second of the
# default 20. In the simulation of tests/unit/worker/test_overload.py, every window has it up to a load of 60 %. Above
# that, a larger share hardly gives more windows a beam, as the load decides that, but each of them comes later.
_BEAM_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class PendingHandover:
    """What changes with the next engine. `perform` replaces the engine; it is called between two jobs."""

    capacity: int
    speed: EngineSpeed
    costs: PassCosts
    perform: Callable[[], object]


class JobQueue:
    """Fair between streams; first in, first out within a stream. Capacity counts waiting jobs and the running ones.

    `costs` are those of the engine's passes. `clock` is the clock of `Job.enqueued`.
    """

    def __init__(
        self,
        capacity: int,
        admission: AdmissionControl | None = None,
        costs: PassCosts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.capacity = capacity
        self._admission = admission or AdmissionControl(math.inf)
        self._costs = costs or PassCosts()
        self._clock = clock
        self._turns = FairQueue()
        self._partials: OrderedDict[str, Job] = OrderedDict()  # at most one per stream, the next one first
        self._preemptible: set[Stop] = set()
        self._running: list[Job] = []
        self._since = 0.0  # when the running jobs began
        self._pass_work = 0.0  # of the pass over them
        self._closed = False
        self._handover: PendingHandover | None = None
        self._scheduled = 0.0  # when the handover was
        self._changed = threading.Condition()

    @property
    def depth(self) -> int:
        """Jobs waiting or running, without partials."""
        return len(self._turns) + len(self._running_windows)

    @property
    def waiting(self) -> bool:
        """Whether a job other than a partial waits."""
        return len(self._turns) > 0

    @property
    def spare(self) -> float:
        """Seconds by which all waiting jobs may be put off and still be in time; infinite when none waits.

        Assumes the worst order: the job that has waited longest is served last.
        """
        with self._changed:
            if not self._turns:
                return math.inf
            oldest = min(job.enqueued for job, _ in self._turns.jobs())
            ahead = self._admission.speed.at_most(self._until_done(self._turns.work, 0.0))
            return self._admission.max_latency - (self._clock() - oldest) - ahead

    @property
    def closed(self) -> bool:
        return self._closed

    def expected_wait(self, stream: str) -> float:
        """Seconds until all jobs are done that would be served before a new window of this stream."""
        with self._changed:
            ahead = self._costs.in_full_passes(self._turns.served_first(stream, 0.0))
            return self._admission.speed.expected(ahead) + self._left()

    def try_put(self, job: Job) -> bool:
        """Put a job without blocking. False when the queue is closed or full, or when the job would be late.

        In a full queue, the job may evict the newest job of the stream that holds the most work. It does so only if
        the two streams are more even afterwards. The evicted job is delivered as `queue_full` before this returns.
        """
        with self._changed:
            self._partials.pop(job.stream, None)  # the window has closed, so its partial is of no use
            work = self._costs.weigh(job.samples)
            if self._closed or (self.depth and not self._in_time(job, work)):
                return False
            fullest = None
            if self.depth >= self.capacity:
                fullest = self._fullest(job.stream)
                if fullest is None:
                    return False
            pushed_out = self._turns.drop_newest(fullest) if fullest is not None else None
            self._turns.put(job, work)
            self._changed.notify()
            for stop in self._preemptible:
                stop.request()
        if pushed_out is not None:
            detail = f"pushed out of {self.capacity} jobs for a stream that holds less"
            waited = self._clock() - pushed_out.enqueued
            pushed_out.deliver(pushed_out.dropped(GapReason.QUEUE_FULL, detail, waited))
        return True

    def offer_partial(self, job: Job) -> None:
        """Offer a partial. It replaces the stream's last one and is given out only while no window waits.

        A window's first partial comes before the others: any text is worth more than newer text. Partials do not count
        in depth and capacity, and are dropped without notice.
        """
        with self._changed:
            if not self._closed:
                self._partials[job.stream] = job  # keeps the older partial's turn
                self._changed.notify()

    def get(self) -> Batch | None:
        """Wait for jobs; None when the queue is closed and empty. Call `done` after each of them.

        The jobs are the next ones in turn, up to as many as the engine takes in a pass. Partials come only when no
        window waits. An expired job comes first: dropping it costs nothing, and its gap is published early.
        """
        with self._changed:
            while not self._turns and not self._partials:
                if self._closed:
                    return None
                self._changed.wait()
            self._since = self._clock()
            batch = self._next()
            self._running = [*batch.jobs]
            work = self._costs.together([self._costs.weigh(job.samples) for job in batch.jobs])
            self._pass_work = work * self._costs.beam if batch.beam else work
            return batch

    @contextmanager
    def preemptible(self) -> Iterator[Stop]:
        """Yield a stop request for work that must give way to windows: it is made when a window waits or runs."""
        stop = Stop()
        with self._changed:
            if self.depth:
                stop.request()
            self._preemptible.add(stop)
        try:
            yield stop
        finally:
            with self._changed:
                self._preemptible.remove(stop)

    def done(self, job: Job) -> None:
        """A running job is finished; its place is free."""
        with self._changed:
            self._running = [other for other in self._running if other is not job]
            self._hand_over()

    def schedule_handover(self, handover: PendingHandover) -> bool:
        """Replace the engine once every job put before now is done. False when the queue is closed.

        Those jobs were accepted at the old engine's speed, so it does them. A job that comes meanwhile must be in time
        after them, at the new engine's speed.
        """
        with self._changed:
            if self._closed:
                return False
            self._handover, self._scheduled = handover, self._clock()
            self._hand_over()
            return True

    def cancel_handover(self) -> None:
        """Keep the engine, unless it has been replaced already."""
        with self._changed:
            self._handover = None

    def close(self) -> None:
        """Accept no more jobs. Waiting windows are still given out; partials are dropped."""
        with self._changed:
            self._closed = True
            self._handover = None
            self._partials.clear()
            self._changed.notify_all()

    def abandon(self) -> list[Job]:
        """Close, and return the jobs that still wait."""
        self.close()
        with self._changed:
            return self._turns.clear()

    @property
    def _running_windows(self) -> list[Job]:
        return [job for job in self._running if not job.partial]

    def _next(self) -> Batch:
        """Take the jobs of the next pass."""
        expired = self._turns.take_older(self._since - self._admission.max_latency)
        if expired is not None:
            return Batch([expired])
        if not self._turns:
            return Batch([self._next_partial() for _ in range(min(self._costs.partials, len(self._partials)))])
        jobs = [self._turns.take() for _ in range(min(self._costs.most, len(self._turns)))]
        return Batch(jobs, beam=self._time_for_beam(jobs))

    def _time_for_beam(self, jobs: list[Job]) -> bool:
        """Whether beam search over these jobs leaves them in time, and the queue short."""
        if self._costs.beam <= 1.0:
            return False
        admission = self._admission
        works = [self._costs.weigh(job.samples) for job in jobs]
        work = self._costs.together(works)
        waiting = self._costs.beam * (work - max(works) + self._costs.in_full_passes(self._turns.work))
        short = admission.speed.expected(waiting) <= _BEAM_SHARE * admission.max_latency
        waited = self._since - min(job.enqueued for job in jobs)
        return short and admission.in_time(waited, self._costs.beam * work)

    def _next_partial(self) -> Job:
        stream = next((s for s, job in self._partials.items() if job.first), None) or next(iter(self._partials))
        return self._partials.pop(stream)

    def _hand_over(self) -> None:
        """Perform the scheduled handover once every job from before it is done."""
        handover = self._handover
        if handover is None or self._running or any(self._older()):
            return
        self._handover = None
        self.capacity, self._costs = handover.capacity, handover.costs
        self._turns.reweigh(handover.costs.weigh)
        handover.perform()

    def _older(self) -> Iterator[float]:
        """The work of each job that was put before the handover was scheduled."""
        return (work for job, work in self._turns.jobs() if job.enqueued < self._scheduled)

    def _in_time(self, job: Job, work: float) -> bool:
        left, ahead = self._left(), self._turns.served_first(job.stream, work)
        if not self._admission.in_time(left, self._until_done(ahead, work)):
            return False
        if self._handover is None:
            return True
        before = min(ahead, sum(self._older()))
        new = self._handover.costs
        heavier = new.weigh(job.samples) / work  # the new engine weighs differently
        after = new.until_done((ahead - before) * heavier, work * heavier, self._turns.quantum * heavier)
        admission = AdmissionControl(self._admission.max_latency, self._handover.speed)
        return admission.in_time(left + self._admission.speed.at_most(self._until_done(before, 0.0)), after)

    def _until_done(self, work: float, own: float) -> float:
        return self._costs.until_done(work, own, self._turns.quantum)

    def _left(self) -> float:
        """Expected seconds until the running pass is done."""
        if not self._running:
            return 0.0
        return max(0.0, self._admission.speed.expected(self._pass_work) - (self._clock() - self._since))

    def _fullest(self, stream: str) -> str | None:
        """The stream with the most work, waiting or running, if it has more than `stream` even without its newest job.

        So a stream's only job is never evicted, and two streams never evict each other's jobs in turn.
        """
        held = self._turns.held()
        with_waiting = list(held)
        for job in self._running_windows:
            held[job.stream] = held.get(job.stream, 0.0) + self._costs.weigh(job.samples)
        fullest = max(with_waiting, key=held.__getitem__, default=None)
        if fullest is None or held[fullest] - self._turns.newest(fullest) <= held.get(stream, 0.0):
            return None
        return fullest
