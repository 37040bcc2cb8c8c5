"""Whose turn it is: jobs of many streams, served fairly by deficit round robin on work. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transcriber.worker.jobs import Job

_SMOOTHING = 0.1  # weight of the newest round: a stream that leans on the others has ten turns within some seconds


@dataclass(slots=True)
class _Line:
    """One stream's waiting jobs with their work, first in, first out."""

    credit: float  # work that the stream may still have done in this turn
    jobs: deque[tuple[Job, float]] = field(default_factory=deque)
    since: float | None = None  # `FairQueue._served` when it began to wait for its turn; None in its turn


class FairQueue:
    """Deficit round robin (Shreedhar and Varghese 1995): O(1) a job, whatever the number of streams.

    In its turn a stream is served for a quantum, the largest job seen so far; what it cannot use of it is kept for its
    next turn, as long as it has jobs waiting. A stream that comes new takes the last turn, for its first job alone:
    what it brings meanwhile would come before the jobs of others, who were promised their time without it.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str, _Line] = OrderedDict()  # streams with jobs waiting, the next one first
        self._work: dict[str, float] = {}  # what waits, by stream
        self._quantum = 0.0
        self._served = 0.0  # work given out so far
        self._round = 0.0  # others' work given out while a stream waits for its turn, smoothed; 0 when unknown
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, job: Job, work: float) -> None:
        self._quantum = max(self._quantum, work)
        line = self._lines.get(job.stream)
        if line is None:
            line = self._lines[job.stream] = _Line(work, since=self._served)
        line.jobs.append((job, work))
        self._work[job.stream] = self._work.get(job.stream, 0.0) + work
        self._count += 1

    def take(self) -> Job:
        """Take out the job whose turn it is. Raises `StopIteration` when there is none."""
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
        """Take out a job that was put before then, out of turn; None when there is none."""
        for stream, line in self._lines.items():
            job, work = line.jobs[0]
            if job.enqueued < than:
                line.jobs.popleft()
                self._took(stream, work)
                return job
        return None

    def newest(self, stream: str) -> float:
        """The work of the job that would be the stream's last."""
        return self._lines[stream].jobs[-1][1]

    def drop_newest(self, stream: str) -> Job:
        """Take out the job that would be the stream's last."""
        line = self._lines[stream]
        job, work = line.jobs.pop()
        self._took(stream, work)
        return job

    def clear(self) -> list[Job]:
        """Take out everything."""
        left = [job for line in self._lines.values() for job, _ in line.jobs]
        self._lines.clear()
        self._work.clear()
        self._count, self._round = 0, 0.0
        return left

    def jobs(self) -> Iterator[tuple[Job, float]]:
        """All that waits, with its work, in no particular order."""
        return (entry for line in self._lines.values() for entry in line.jobs)

    def reweigh(self, weigh: Callable[[int], float]) -> None:
        """Count the work of what waits again; streams keep their order and begin a fresh turn."""
        lines = [[job for job, _ in line.jobs] for line in self._lines.values()]
        self.clear()
        self._quantum = max((weigh(job.samples) for line in lines for job in line), default=0.0)
        for line in lines:
            for job in line:
                self.put(job, weigh(job.samples))

    def held(self) -> dict[str, float]:
        """The work that waits, by stream."""
        return dict(self._work)

    def served_first(self, stream: str, work: float) -> float:
        """How much work will have been done when one more job of the stream is, itself included.

        Of its own stream all of it; of each other one no more than round robin gives it meanwhile: as much as this
        stream gets, and a quantum. That counts what is here. A stream that needs several turns is also overtaken by
        what is still to come: from turn to turn it waits for a round, and rounds are taken to be what they were lately.
        """
        waiting = self._work.get(stream, 0.0)
        own = waiting + work
        present = own + self._others(waiting, own + self._quantum)
        line = self._lines.get(stream)
        credit = work if line is None else line.credit
        if own <= credit or not self._round:
            return present
        further = math.ceil((own - credit) / self._quantum)  # turns after its next one
        return max(present, own + self._others(waiting, self._quantum) + further * self._round)

    def _others(self, mine: float, most: float) -> float:
        """What waits in the other streams, each counted up to `most`. With numpy: this runs for every put."""
        works = np.fromiter(self._work.values(), float, len(self._work))
        return float(np.minimum(works, most).sum()) - min(mine, most)

    def _took(self, stream: str, work: float) -> None:
        self._count -= 1
        self._work[stream] -= work
        if not self._lines[stream].jobs:
            del self._lines[stream], self._work[stream]
        if not self._lines:
            self._round = 0.0
