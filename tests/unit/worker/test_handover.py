"""Handing over from one engine to another: promises are kept, and no waiting job is dropped."""

from __future__ import annotations

import asyncio
import math
import threading
import time

import pytest
from scripted import SPEECH, Collector, Scripted, finish, started, take, window

from transcriber.domain.errors import EngineError, Stopped
from transcriber.worker.admission import AdmissionControl, EngineSpeed
from transcriber.worker.costs import PassCosts
from transcriber.worker.handover import ModelHandover
from transcriber.worker.jobs import Job
from transcriber.worker.queue import JobQueue, PendingHandover


class Other(Scripted):
    """Another engine, under another name, that notes when it is closed."""

    model = "other"

    def __init__(self, *script: float | Exception) -> None:
        super().__init__(*script)
        self.closed = threading.Event()

    def close(self) -> None:
        assert not self.closed.is_set()
        self.closed.set()


def seven(_rtf: float) -> int:
    """The other engine's capacity."""
    return 7


class Clock:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def job(sequence: int, enqueued: float, stream: str = "s") -> Job:
    return Job(window=window(sequence, stream=stream), deliver=lambda _: None, enqueued=enqueued)


def scheduled(queue: JobQueue, capacity: int = 1, seconds: float = 1.0) -> list[str]:
    """Announce an engine that takes `seconds` a window. The list gets an entry when it takes over."""
    taken: list[str] = []
    weigh = lambda samples: samples / 8000  # noqa: E731 - twice the weight: another engine counts differently
    speed = EngineSpeed(seconds, 2.0, 1.0)
    assert queue.schedule_handover(
        PendingHandover(capacity, speed, PassCosts(weigh=weigh), lambda: taken.append("over"))
    )
    return taken


def test_an_idle_worker_is_taken_over_at_once() -> None:
    """Between two jobs the change needs no wait."""
    queue = JobQueue(5)
    assert scheduled(queue, capacity=3) == ["over"]
    assert queue.capacity == 3


def test_waiting_jobs_are_finished_by_the_engine_they_came_to() -> None:
    """Two jobs came before the announcement and one after it. The change is between the second and the third."""
    clock = Clock()
    queue = JobQueue(5, clock=clock)
    for sequence in (0, 1):
        assert queue.try_put(job(sequence, 0.0))
    assert take(queue).window.sequence == 0
    clock.now = 1.0
    taken = scheduled(queue)
    assert queue.try_put(job(2, 1.5))
    finish(queue)
    assert (take(queue).window.sequence, taken) == (1, [])
    finish(queue)
    assert (taken, queue.capacity, queue.depth) == (["over"], 1, 1)
    assert take(queue).window.sequence == 2


def test_a_smaller_capacity_drops_nothing_that_waits() -> None:
    """The queue is longer than the new limit. It gets shorter as its jobs are done."""
    clock = Clock()
    queue = JobQueue(5, clock=clock)
    queue.try_put(job(0, 0.0))
    take(queue)
    clock.now = 1.0
    taken = scheduled(queue, capacity=1)
    for sequence in (1, 2, 3):
        assert queue.try_put(job(sequence, 1.0))
    finish(queue)
    assert (taken, queue.capacity, queue.depth) == (["over"], 1, 3)
    assert not queue.try_put(job(4, 1.0))
    found = []
    for _ in range(3):
        found.append(take(queue).window.sequence)
        finish(queue)
    assert found == [1, 2, 3]


def test_new_jobs_must_be_in_time_at_both_speeds() -> None:
    """A window takes 0.1 s now and 1 s after the change, and 3 s are allowed.

    Waiting jobs cost little, new ones more.
    """
    clock = Clock()
    queue = JobQueue(100, AdmissionControl(3.0, EngineSpeed(0.1, 16_000.0, 1.0)), clock=clock)
    for sequence in range(11):
        assert queue.try_put(job(sequence, 0.0))
    clock.now = 0.01
    scheduled(queue)
    accepted = [queue.try_put(job(11 + n, 0.02)) for n in range(4)]
    assert accepted == [
        True,
        False,
        False,
        False,
    ]  # 1.1 s for the eleven and 1 s for the first; another one is too much


def test_an_announcement_can_be_taken_back() -> None:
    """That works until the change has happened."""
    queue = JobQueue(5)
    queue.try_put(job(0, -1.0))
    taken = scheduled(queue)
    queue.cancel_handover()
    take(queue)
    finish(queue)
    assert (taken, queue.capacity) == ([], 5)


def test_a_closed_queue_keeps_its_engine() -> None:
    """At shutdown the queued jobs are finished by the engine at work."""
    queue = JobQueue(5)
    queue.try_put(job(0, -1.0))
    taken = scheduled(queue)
    queue.close()
    take(queue)
    finish(queue)
    assert taken == []
    assert not queue.schedule_handover(PendingHandover(1, EngineSpeed(), PassCosts(), lambda: None))


def test_streams_keep_their_order_when_work_is_counted_again() -> None:
    """Five windows came while an earlier one ran. Each weighs twice as much for the other engine."""
    queue = JobQueue(10, clock=Clock())
    queue.try_put(job(9, -1.0))
    take(queue)
    taken = scheduled(queue, capacity=10)
    for sequence, stream in enumerate("aabba"):
        assert queue.try_put(job(sequence, 0.0, stream))
    finish(queue)
    assert taken == ["over"]
    assert queue._turns.held() == {"a": 6.0, "b": 4.0}
    found = []
    while queue.depth:
        found.append(take(queue).stream)
        finish(queue)
    assert found == ["a", "b", "a", "b", "a"]


async def test_new_engine_takes_the_next_window_and_the_old_is_closed() -> None:
    """Windows are decoded while it loads. Then its measured pace is the promise."""
    one, other, done = Other(0.0), Other(0.02), Collector()
    one.model = "one"
    thread, queue = await started(one)
    loading = threading.Event()

    def load() -> Other:
        assert threading.current_thread().name == "handover"
        assert loading.wait(10)
        return other

    handover = asyncio.create_task(ModelHandover(thread, queue, load, SPEECH, seven).run())
    queue.try_put(Job(window=window(0), deliver=done))
    (before,) = await done.have(1)
    loading.set()
    warm = await handover
    queue.try_put(Job(window=window(1), deliver=done))
    after = (await done.have(2))[1]
    assert [o.recognition and o.recognition.model for o in (before, after)] == ["one", "other"]
    assert (thread.model, queue.capacity, one.closed.is_set(), other.closed.is_set()) == ("other", 7, True, False)
    assert 0.02 <= warm.rtf < 0.5
    assert other.threads == {"handover", "whisper"}
    queue.close()


async def test_a_load_that_fails_leaves_everything_as_it_was() -> None:
    """It may raise anything. An engine that fails in its measurement is closed."""
    one, broken, done = Other(0.0), Other(EngineError("whisper_full returned -6")), Collector()
    thread, queue = await started(one)

    def fails() -> Other:
        raise ValueError("odd")

    with pytest.raises(EngineError, match="ValueError: odd"):
        await ModelHandover(thread, queue, fails, SPEECH, seven).run()
    with pytest.raises(EngineError, match="-6"):
        await ModelHandover(thread, queue, lambda: broken, SPEECH, seven).run()
    assert broken.closed.is_set()
    queue.try_put(Job(window=window(0), deliver=done))
    assert (await done.have(1))[0].recognition is not None
    assert (queue.capacity, one.closed.is_set()) == (10, False)
    queue.close()


async def test_measuring_gives_way_to_windows() -> None:
    """A window stops the measuring pass. It begins again when the worker is idle."""
    one, other, done = Other(0.0, 0.05), Other(math.inf, 0.0), Collector()
    thread, queue = await started(one)
    handover = asyncio.create_task(ModelHandover(thread, queue, lambda: other, SPEECH, seven).run())
    assert await asyncio.to_thread(other.endless.wait, 10)
    queue.try_put(Job(window=window(0), deliver=done))
    assert (await done.have(1))[0].recognition is not None
    async with asyncio.timeout(10):
        warm = await handover
    assert warm.rtf < 0.5
    assert thread.model == "other"
    queue.close()


async def test_giving_up_ends_a_measurement_and_closes_the_new_engine() -> None:
    """This happens at shutdown, in the middle of a pass."""
    one, other = Other(0.0), Other(math.inf)
    thread, queue = await started(one)
    handover = ModelHandover(thread, queue, lambda: other, SPEECH, seven)
    running = asyncio.create_task(handover.run())
    assert await asyncio.to_thread(other.endless.wait, 10)
    begin = time.monotonic()
    handover.cancel()
    with pytest.raises(Stopped):
        await running
    assert time.monotonic() - begin < 5
    assert (other.closed.is_set(), one.closed.is_set()) == (True, False)
    queue.close()


async def test_giving_up_before_the_change_keeps_the_old_engine() -> None:
    """The other engine is ready and waits for an earlier window. It never takes over."""
    one, other, done = Other(0.0, math.inf, 0.0), Other(0.0), Collector()
    one.model = "one"
    thread, queue = await started(one, max_latency=2.0)
    measured = threading.Event()

    def capacity(_rtf: float) -> int:
        queue.try_put(Job(window=window(0), deliver=done, enqueued=time.monotonic() - 0.1))
        assert one.endless.wait(10)
        measured.set()
        return 7

    handover = ModelHandover(thread, queue, lambda: other, SPEECH, capacity)
    running = asyncio.create_task(handover.run())
    assert await asyncio.to_thread(measured.wait, 10)
    handover.cancel()
    with pytest.raises(Stopped):
        await running
    await done.have(1)
    assert (thread.model, queue.capacity) == ("one", 10)
    assert (one.closed.is_set(), other.closed.is_set()) == (False, True)
    queue.close()
