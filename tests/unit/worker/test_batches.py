"""Several windows in one pass: order, isolation, deadlines, and how many are worth it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

import pytest
from scripted import SPEECH, Collector, Scripted, window

from transcriber.domain.errors import EngineError
from transcriber.domain.timeline import GapReason
from transcriber.worker import warmup
from transcriber.worker.cancellation import Stop
from transcriber.worker.engine import Decoded, Device, Speech
from transcriber.worker.jobs import Job
from transcriber.worker.queue import JobQueue
from transcriber.worker.thread import WhisperThread


class Batching(Scripted):
    """Decodes up to four windows in a pass. One of `bad` samples fails its whole pass; `unsure` ones are in doubt."""

    device = Device.CUDA
    batch_sizes: tuple[int, ...] = (4,)

    def __init__(self, *script: float | Exception, bad: int = 0, unsure: int = 0) -> None:
        super().__init__(*script or (0.0,))
        self.bad, self.unsure = bad, unsure
        self.lengths: list[list[int]] = []

    def transcribe_many(
        self, speech: Sequence[Speech], stop: Stop | None = None, *, attempt: int = 0, quick: bool = False
    ) -> list[Decoded]:
        self.lengths.append([len(window.samples) for window in speech])
        if self.bad in self.lengths[-1]:
            raise EngineError("no such window")
        return super().transcribe_many(speech, stop, attempt=attempt, quick=quick)

    def _decoded(self, length: int, language: str | None, attempt: int) -> Decoded:
        self.confidences[0] = 0.2 if length == self.unsure else 0.9
        return super()._decoded(length, language, attempt)


async def serving(engine: Batching, jobs: Sequence[Job], max_latency: float = 20.0) -> WhisperThread:
    """A thread that finds all the jobs waiting."""
    thread = WhisperThread(lambda: engine, max_latency)
    await thread.start(SPEECH)
    queue = JobQueue(100, thread.admission, thread.costs)
    for job in jobs:
        assert queue.try_put(job)
    engine.lengths.clear()
    engine.attempts.clear()
    thread.serve(queue)
    queue.close()
    return thread


def jobs_of(lengths: Sequence[int], deliver: Collector, streams: str = "abcdef") -> list[Job]:
    return [
        Job(window=window(n, length, streams[n % len(streams)]), deliver=deliver) for n, length in enumerate(lengths)
    ]


async def test_waiting_windows_of_many_streams_share_passes() -> None:
    """Six wait: four in the first pass and two in the second, in the order of their turns."""
    engine, done = Batching(), Collector()
    lengths = [1000 + n for n in range(6)]
    await serving(engine, jobs_of(lengths, done))
    outcomes = await done.have(6)
    assert engine.lengths == [lengths[:4], lengths[4:]]
    assert [o.recognition and o.recognition.text for o in outcomes] == [str(length) for length in lengths]


async def test_a_batch_takes_streams_in_turn() -> None:
    """A stream with many windows gets no more than its turn in the first pass."""
    engine, done = Batching(), Collector()
    jobs = jobs_of([1000] * 8, done, "aaaaabcd")
    await serving(engine, jobs)
    first = (await done.have(8))[:4]
    assert sorted(o.window.origin.stream for o in first) == ["a", "b", "c", "d"]


async def test_a_window_that_fails_takes_no_other_along() -> None:
    """Each window of a failed pass has one of its own. Only the bad one is a gap."""
    engine, done = Batching(bad=1002), Collector()
    await serving(engine, jobs_of([1000, 1001, 1002, 1003], done))
    outcomes = await done.have(4)
    assert [o.reason for o in outcomes] == [None, None, GapReason.ENGINE_ERROR, None]
    assert outcomes[2].detail == "no such window"
    assert engine.lengths == [[1000, 1001, 1002, 1003], [1000], [1001], [1002], [1003]]


async def test_a_doubtful_window_holds_no_other_up() -> None:
    """The others' texts come after the first pass. The doubtful one has a second pass alone."""
    engine, done = Batching(unsure=1001), Collector()
    await serving(engine, jobs_of([1000, 1001, 1002], done))
    outcomes = await done.have(3)
    assert engine.lengths == [[1000, 1001, 1002], [1001]]
    assert [(o.window.samples.size, o.passes) for o in outcomes] == [(1000, 1), (1002, 1), (1001, 2)]


async def test_windows_in_a_pass_past_all_deadlines_are_gaps() -> None:
    """The pass is told to stop when the last of them is too late."""
    engine, done = Batching(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, math.inf, 0.0), Collector()
    thread = await serving(engine, jobs_of([1000, 1001], done), max_latency=0.5)
    outcomes = await done.have(2)
    assert {o.reason for o in outcomes} == {GapReason.DEADLINE}
    await asyncio.wait_for(thread.finished.wait(), 10)


async def test_partials_share_passes_too() -> None:
    """They are still given out only while no window waits."""
    engine, done = Batching(), Collector()
    thread = WhisperThread(lambda: engine, 20.0)
    await thread.start(SPEECH)
    queue = JobQueue(100, thread.admission, thread.costs)
    for job in jobs_of([1000, 1001, 1002], done):
        queue.offer_partial(Job(window=job.window, deliver=done, partial=True))
    engine.lengths.clear()
    thread.serve(queue)
    outcomes = await done.have(3)
    queue.close()
    assert engine.lengths == [[1000, 1001, 1002]]
    assert thread.busy_seconds == 0
    assert all(o.recognition is not None for o in outcomes)


def measured(
    sizes: tuple[int, ...], seconds: Sequence[float], max_latency: float = 20.0, fails: int = 1000
) -> warmup.MeasuredEngine:
    """Measure a stand-in whose passes take `seconds` for each number of windows: fixed, and for each window."""
    fixed, each = seconds
    engine = Batching()
    engine.batch_sizes = sizes

    def run(count: int, _quick: bool) -> float:
        if count >= fails:
            raise EngineError("out of memory")
        return fixed + each * count

    return warmup.measured(engine, SPEECH, run, max_latency)


@pytest.mark.parametrize(
    ("fixed", "each", "most"),
    [
        (0.0, 0.1, 1),  # as on a CPU: twice the windows take twice the time
        (0.1, 0.001, 64),  # as on a GPU
        (0.1, 0.12, 4),  # 0.22 s for one; 0.17, 0.145 and 0.1325 s a window for two, four and eight
    ],
)
def test_a_batch_grows_while_windows_become_cheaper(fixed: float, each: float, most: int) -> None:
    """Each doubling has to save a tenth."""
    found = measured((1, 2, 4, 8, 16, 32, 64), (fixed, each))
    assert found.costs.most == most
    assert found.costs.full == pytest.approx((fixed + each * most) / (fixed + each))
    assert found.rtf == pytest.approx((fixed + each * most) / most)  # the speech is one second
    assert found.speed.expected(found.costs.together([1.0] * most)) == pytest.approx(fixed + each * most)


def test_a_pass_takes_a_quarter_of_the_promise_at_most() -> None:
    """Passes of 0.1 s and 0.01 s a window, and a promise of 1 s: 8 windows take 0.18 s, and 16 take 0.26."""
    assert measured((1, 2, 4, 8, 16, 32), (0.1, 0.01), max_latency=1.0).costs.most == 8


def test_a_batch_that_does_not_fit_into_memory_is_not_used() -> None:
    """The largest one that worked is."""
    assert measured((1, 2, 4, 8, 16), (0.1, 0.001), fails=8).costs.most == 4


@pytest.mark.parametrize(
    ("workers", "each", "max_latency", "most"),
    [
        (1, 0.6, 20.0, 8),
        (1, 0.95, 20.0, 1),  # nothing is gained
        (2, 0.3, 20.0, 8),
        (1, 0.6, 10.0, 4),  # eight take up to 4 s, and a quarter of L_max is 2.5 s
        (2, 0.3, 1.0, 1),
    ],
)
def test_a_cpu_tries_the_largest_batch_that_surely_fits(
    workers: int, each: float, max_latency: float, most: int
) -> None:
    """One pass is measured, as each takes seconds. Windows take no longer together than one after another."""
    engine, tried = Batching(), []
    engine.device, engine.workers, engine.batch_sizes = Device.CPU, workers, (1, 2, 4, 8)

    def run(count: int, _quick: bool) -> float:
        tried.append(count)
        return 0.5 if count == 1 else 0.5 * each * count

    found = warmup.measured(engine, SPEECH, run, max_latency)
    assert found.costs.most == most
    assert found.costs.partials == min(workers, most)
    assert len([count for count in tried if count > 1]) <= 1


def test_a_given_size_is_taken_without_a_gain() -> None:
    """It is the operator's choice, within the promise."""
    assert measured((3,), (0.0, 0.1)).costs.most == 3
    assert measured((3,), (0.0, 0.1), max_latency=0.8).costs.most == 1


async def test_beams_are_measured_and_used_when_nobody_waits() -> None:
    """A pass with beams takes three times as long here. The first of five windows has none, the last one has."""

    class Beamed(Scripted):
        beams = True

        def transcribe_many(
            self, speech: Sequence[Speech], stop: Stop | None = None, *, attempt: int = 0, quick: bool = False
        ) -> list[Decoded]:
            found = super().transcribe_many(speech, stop, attempt=attempt, quick=quick)
            time.sleep(0.05 if quick else 0.15)
            return found

    engine, done = Beamed(0.0), Collector()
    thread = WhisperThread(lambda: engine, 2.0)
    await thread.start(SPEECH)
    assert 1.5 < thread.costs.beam < 6
    queue = JobQueue(100, thread.admission, thread.costs)
    for job in jobs_of([16_000] * 5, done):
        assert queue.try_put(job)
    engine.quick.clear()
    thread.serve(queue)
    await done.have(5)
    assert engine.quick[0]
    assert not engine.quick[-1]
    queue.offer_partial(Job(window=window(9), deliver=done, partial=True))
    await done.have(6)
    assert engine.quick[-1]
    queue.close()
