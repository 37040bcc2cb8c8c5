"""Serves the jobs of many streams fairly: deficit round robin by work. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transcriber.worker.jobs import Job

_SMOOTHING = 0.1  # weight of the newest round: a busy stream has ten turns within seconds


@dataclass(slots=True)
class _Line:
    """One stream's waiting jobs with their work; first in, first out."""

    credit: float  # work left to the stream in this turn
    jobs: deque[tuple[Job, float]] = field(default_factory=deque)
    since: float | None = None  # `FairQueue._served` when the stream began to wait for its turn; None during its turn


class FairQueue:
    """Deficit round robin (Shreedhar and Varghese 1995): O(1) per job, for any number of streams.

    In its turn a stream is served for a quantum of work: the largest job seen so far. It keeps the unused rest for its
    next turn, as long as it has jobs waiting. A new stream takes the last turn, and that turn serves its first job
    alone. Its further jobs would overtake other streams' jobs, whose times were promised without them.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str, _Line] = OrderedDict()  # streams with waiting jobs, the next one first
        self._work: dict[str, float] = {}  # waiting work, by stream
        self._quantum = 0.0
        self._served = 0.0  # work given out so far
        self._round = 0.0  # work of other streams between two turns of one, smoothed; 0 while unknown
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def quantum(self) -> float:
        """The largest work of a job so far."""
        return self._quantum

    @property
    def work(self) -> float:
        """The work of all waiting jobs."""
        return sum(self._work.values())

    def put(self, job: Job, work: float) -> None:
        self._quantum = max(self._quantum, work)
        line = self._lines.get(job.stream)
        if line is None:
            line = self._lines[job.stream] = _Line(work, since=self._served)
        line.jobs.append((job, work))
        self._work[job.stream] = self._work.get(job.stream, 0.0) + work
        self._count += 1

    def take(self) -> Job:
        """Remove and return the next job. Raises `StopIteration` when there is none."""
        while True:
            stream, line = next(iter(self._lines.items()))
            if line.since is not None:
                round_ = self._served - line.since
                self._round += _SMOOTHING * (round_ - self._round) if self._round else round_
                line.since = None
            job, work = line.jobs[0]
            if work <= line.credit:
                break
            line.since = self._served
            line.credit += self._quantum
            self._lines.move_to_end(stream)
        line.credit -= work
        self._served += work
        line.jobs.popleft()
        self._took(stream, work)
        return job

    def take_older(self, than: float) -> Job | None:
        """Remove and return, out of turn, a job that was put before `than`; None when there is none."""
        for stream, line in self._lines.items():
            job, work = line.jobs[0]
            if job.enqueued < than:
                line.jobs.popleft()
                self._took(stream, work)
                return job
        return None

    def newest(self, stream: str) -> float:
        """The work of the stream's newest job."""
        return self._lines[stream].jobs[-1][1]

    def drop_newest(self, stream: str) -> Job:
        """Remove and return the stream's newest job."""
        line = self._lines[stream]
        job, work = line.jobs.pop()
        self._took(stream, work)
        return job

    def clear(self) -> list[Job]:
        """Remove and return all jobs."""
        left = [job for line in self._lines.values() for job, _ in line.jobs]
        self._lines.clear()
        self._work.clear()
        self._count, self._round = 0, 0.0
        return left

    def jobs(self) -> Iterator[tuple[Job, float]]:
        """All waiting jobs with their work, in no particular order."""
        return (entry for line in self._lines.values() for entry in line.jobs)

    def reweigh(self, weigh: Callable[[int], float]) -> None:
        """Weigh all waiting jobs again. Streams keep their order and begin a fresh turn."""
        lines = [[job for job, _ in line.jobs] for line in self._lines.values()]
        self.clear()
        self._quantum = max((weigh(job.samples) for line in lines for job in line), default=0.0)
        for line in lines:
            for job in line:
                self.put(job, weigh(job.samples))

    def held(self) -> dict[str, float]:
        """The waiting work, by stream."""
        return dict(self._work)

    def served_first(self, stream: str, work: float) -> float:
        """How much work is served up to the end of one more job of the stream, including that job.

        All work of its own stream counts. Of each other stream counts what round robin serves in between: at most as
        much as this stream gets, plus a quantum. That covers the jobs that wait now. A stream that needs several turns
        is also overtaken by jobs still to come. It waits one round per turn, and rounds are assumed to be as before.
        """
        waiting = self._work.get(stream, 0.0)
        own = waiting + work
        present = own + self._others(waiting, own + self._quantum)
        line = self._lines.get(stream)
        credit = work if line is None else line.credit
        if own <= credit or not self._round:
            return present
        further = math.ceil((own - credit) / self._quantum)  # turns needed after its next one
        return max(present, own + self._others(waiting, self._quantum) + further * self._round)

    def _others(self, mine: float, most: float) -> float:
        """Waiting work of the other streams, at most `most` of each. Uses numpy because this runs at every put."""
        works = np.fromiter(self._work.values(), float, len(self._work))
        return float(np.minimum(works, most).sum()) - min(mine, most)

    def _took(self, stream: str, work: float) -> None:
        self._count -= 1
        self._work[stream] -= work
        if not self._lines[stream].jobs:
            del self._lines[stream], self._work[stream]
        if not self._lines:
            self._round = 0.0
