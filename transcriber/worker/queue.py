"""A bounded queue between the event loop and the Whisper thread: put never waits, streams are served in turn."""

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
from transcriber.worker.fairness import FairQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transcriber.worker.jobs import Job


@dataclass(frozen=True, slots=True)
class PendingHandover:
    """What changes when another engine takes over; `take_over` is called at that moment, between two jobs."""

    capacity: int
    pace: EngineSpeed
    weigh: Callable[[int], float]
    take_over: Callable[[], object]


class JobQueue:
    """Fair between streams, first in, first out inside one. Capacity counts jobs waiting and the one running.

    `weigh` gives the work of a window of so many samples; `clock` is the one that `Job.enqueued` was read from.
    """

    def __init__(
        self,
        capacity: int,
        admission: AdmissionControl | None = None,
        weigh: Callable[[int], float] = float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.capacity = capacity
        self._admission = admission or AdmissionControl(math.inf)
        self._weigh = weigh
        self._clock = clock
        self._turns = FairQueue()
        self._partials: OrderedDict[str, Job] = OrderedDict()  # at most one a stream, the next one first
        self._giving_way: set[Stop] = set()
        self._running: Job | None = None
        self._since = 0.0  # when the running job began
        self._closed = False
        self._succession: PendingHandover | None = None
        self._announced = 0.0  # when
        self._changed = threading.Condition()

    @property
    def depth(self) -> int:
        """Jobs waiting or running, partials not counted."""
        return len(self._turns) + (self._running is not None and not self._running.partial)

    @property
    def waiting(self) -> bool:
        """Whether a job waits that is no partial."""
        return len(self._turns) > 0

    @property
    def spare(self) -> float:
        """Seconds by which everything that waits may be put off and still be in time: infinite when nothing waits.

        As if what has waited longest came last: the order of turns may favour others, and no promise may hang on it.
        """
        with self._changed:
            if not self._turns:
                return math.inf
            oldest = min(job.enqueued for job, _ in self._turns.jobs())
            ahead = self._admission.pace.at_most(sum(self._turns.held().values()))
            return self._admission.max_latency - (self._clock() - oldest) - ahead

    @property
    def closed(self) -> bool:
        return self._closed

    def expected_wait(self, stream: str) -> float:
        """Seconds until everything is done that would be served before a new window of the stream."""
        with self._changed:
            return self._admission.pace.expected(self._turns.served_first(stream, 0.0)) + self._left()

    def try_put(self, job: Job) -> bool:
        """Put without waiting; False when the queue is closed, or full, or the job would be late.

        In a full queue a job takes the place of the newest one of the stream that holds most work, if that leaves the
        two more even. What is pushed out is delivered as `queue_full`, from here.
        """
        with self._changed:
            self._partials.pop(job.stream, None)  # the window has closed: nobody needs a look at it any more
            work = self._weigh(job.samples)
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
            for stop in self._giving_way:
                stop.ask()
        if pushed_out is not None:
            detail = f"pushed out of {self.capacity} jobs for a stream that holds less"
            waited = self._clock() - pushed_out.enqueued
            pushed_out.deliver(pushed_out.dropped(GapReason.QUEUE_FULL, detail, waited))
        return True

    def offer_partial(self, job: Job) -> None:
        """Offer a look at an open window: given out only while nothing else waits, replaced by the stream's next one.

        First looks come before others: text where there is none is worth more than newer text.

        It has no place in depth or capacity, and is dropped without a word.
        """
        with self._changed:
            if not self._closed:
                self._partials[job.stream] = job  # a newer one takes the older one's turn
                self._changed.notify()

    def get(self) -> Job | None:
        """Wait for a job; None when the queue is closed and empty. Answer each with `done`.

        What cannot be in time any more comes first: it costs nothing, and its gap is told before its turn would come.
        """
        with self._changed:
            while not self._turns and not self._partials:
                if self._closed:
                    return None
                self._changed.wait()
            self._since = self._clock()
            expired = self._turns.take_older(self._since - self._admission.max_latency)
            self._running = expired or (self._turns.take() if self._turns else self._next_partial())
            return self._running

    @contextmanager
    def giving_way(self) -> Iterator[Stop]:
        """For work that gives way to windows: yields what asks for its end when one waits or runs, until left."""
        stop = Stop()
        with self._changed:
            if self.depth:
                stop.ask()
            self._giving_way.add(stop)
        try:
            yield stop
        finally:
            with self._changed:
                self._giving_way.remove(stop)

    def done(self) -> None:
        """The job that was got is finished; its place is free."""
        with self._changed:
            self._running = None
            self._succeed()

    def announce(self, succession: PendingHandover | None) -> bool:
        """Let another engine take over when everything is done that was put before; None takes that back.

        What was put before was promised at the speed of the engine so far; what comes meanwhile must be in time with
        the rest of that and at the other one's speed. False when the queue is closed: what it holds ends as it began.
        """
        with self._changed:
            if self._closed:
                return False
            self._succession, self._announced = succession, self._clock()
            self._succeed()
            return True

    def close(self) -> None:
        """Take no more jobs; those waiting are still given out, except partials."""
        with self._changed:
            self._closed = True
            self._succession = None
            self._partials.clear()
            self._changed.notify_all()

    def abandon(self) -> list[Job]:
        """Close, and hand back the jobs that are still waiting."""
        self.close()
        with self._changed:
            return self._turns.clear()

    def _next_partial(self) -> Job:
        stream = next((s for s, job in self._partials.items() if job.first), None) or next(iter(self._partials))
        return self._partials.pop(stream)

    def _succeed(self) -> None:
        """Let the announced engine take over if its time has come."""
        after = self._succession
        if after is None or self._running is not None or any(self._older()):
            return
        self._succession = None
        self.capacity, self._weigh = after.capacity, after.weigh
        self._turns.reweigh(after.weigh)
        after.take_over()

    def _older(self) -> Iterator[float]:
        """The work of each job that waits since before the announcement."""
        return (work for job, work in self._turns.jobs() if job.enqueued < self._announced)

    def _in_time(self, job: Job, work: float) -> bool:
        left, ahead = self._left(), self._turns.served_first(job.stream, work)
        if not self._admission.in_time(left, ahead):
            return False
        if self._succession is None:
            return True
        before = min(ahead, sum(self._older()))
        after = (ahead - before) * self._succession.weigh(job.samples) / work
        admission = AdmissionControl(self._admission.max_latency, self._succession.pace)
        return admission.in_time(left + self._admission.pace.at_most(before), after)

    def _left(self) -> float:
        """Seconds that the running job will still need."""
        if self._running is None:
            return 0.0
        expected = self._admission.pace.expected(self._weigh(self._running.samples))
        return max(0.0, expected - (self._clock() - self._since))

    def _fullest(self, stream: str) -> str | None:
        """The stream that holds most work, waiting or running, if it holds more than this one even without its newest.

        So nobody's only job is pushed out, and who was pushed out cannot push back.
        """
        held = self._turns.held()
        with_waiting = list(held)
        if self._running is not None and not self._running.partial:
            running = self._running.stream
            held[running] = held.get(running, 0.0) + self._weigh(self._running.samples)
        fullest = max(with_waiting, key=held.__getitem__, default=None)
        if fullest is None or held[fullest] - self._turns.newest(fullest) <= held.get(stream, 0.0):
            return None
        return fullest
