"""The bounded queue: putting never waits, capacity counts the running job, and no stream takes another's share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scripted import finish, take

from transcriber.domain.timeline import GapReason, Origin, Window
from transcriber.worker.admission import AdmissionControl, EngineSpeed
from transcriber.worker.jobs import Job, Outcome
from transcriber.worker.queue import JobQueue


def job(
    sequence: int,
    stream: str = "s",
    samples: int = 100,
    deliver: Callable[[Outcome], None] = lambda _outcome: None,
    *,
    partial: bool = False,
) -> Job:
    window = Window(
        origin=Origin(stream, "x"), sequence=sequence, start=0, end=samples, samples=np.zeros(0, np.float32)
    )
    return Job(window=window, deliver=deliver, enqueued=0.0, partial=partial)


def look(sequence: int, stream: str = "s") -> Job:
    return job(sequence, stream, partial=True)


def sequences(queue: JobQueue) -> list[int]:
    """Take out everything that waits."""
    taken = []
    while queue.waiting:
        found = take(queue)
        assert found is not None
        taken.append(found.window.sequence)
        finish(queue)
    return taken


def test_jobs_come_out_in_the_order_in_which_they_went_in() -> None:
    """First in, first out."""
    queue = JobQueue(5)
    assert all(queue.try_put(job(n)) for n in range(5))
    assert [(taken := take(queue)) and taken.window.sequence for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_full_queue_refuses_at_once_and_a_running_job_counts() -> None:
    """Capacity is waiting plus running. The place is free only when the job is done."""
    queue = JobQueue(2)
    assert queue.try_put(job(0))
    assert queue.try_put(job(1))
    assert not queue.try_put(job(2))
    take(queue)
    assert queue.depth == 2
    assert not queue.try_put(job(2))
    finish(queue)
    assert queue.depth == 1
    assert queue.try_put(job(2))


def test_a_closed_queue_gives_out_what_it_holds_and_then_ends() -> None:
    """Nothing goes in after the close, and nothing that was in is lost."""
    queue = JobQueue(2)
    queue.try_put(job(0))
    queue.close()
    assert not queue.try_put(job(1))
    assert take(queue) is not None
    assert take(queue) is None


def test_abandoning_hands_back_what_was_waiting() -> None:
    """Jobs that the worker did not reach can still be reported."""
    queue = JobQueue(3)
    for n in range(3):
        queue.try_put(job(n))
    take(queue)
    assert [j.window.sequence for j in queue.abandon()] == [1, 2]
    assert take(queue) is None


def test_a_waiting_consumer_is_woken_by_a_put_and_by_a_close() -> None:
    """`get` blocks only its own thread, until something changes."""
    queue = JobQueue(1)
    taken: list[Job | None] = []
    thread = threading.Thread(target=lambda: taken.extend([take(queue), take(queue)]))
    thread.start()
    assert queue.try_put(job(7))
    queue.close()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert taken[0] is not None
    assert taken[1] is None


def test_full_queue_evicts_the_newest_job_of_a_flooding_stream() -> None:
    """A stream that holds less gets its share. The evicted job is reported at once, exactly once, with the reason."""
    told: list[Outcome] = []
    queue = JobQueue(4, clock=lambda: 7.0)
    for n in range(4):
        assert queue.try_put(job(n, "flood", deliver=told.append))
    assert not queue.try_put(job(4, "flood", deliver=told.append))
    assert told == []
    assert queue.try_put(job(10, "modest"))
    assert queue.depth == 4
    (outcome,) = told
    assert outcome.window.sequence == 3
    assert (outcome.recognition, outcome.reason, outcome.queued, outcome.processing) == (
        None,
        GapReason.QUEUE_FULL,
        7.0,
        0.0,
    )
    assert "4 jobs" in outcome.detail
    assert sorted(sequences(queue)) == [0, 1, 2, 10]


def test_equal_streams_do_not_push_each_other_out() -> None:
    """A job is evicted only for one that leaves the streams more even, never back and forth."""
    queue = JobQueue(4)
    for n, stream in enumerate("abab"):
        assert queue.try_put(job(n, stream))
    assert queue.try_put(job(4, "c"))
    assert not queue.try_put(job(5, "c"))
    assert not queue.try_put(job(6, "a"))
    assert not queue.try_put(job(7, "b"))


def test_a_short_window_does_not_push_out_anothers_only_one() -> None:
    """Otherwise long windows would lose to short ones for nothing."""
    queue = JobQueue(2)
    assert queue.try_put(job(0, "a", samples=300))
    assert queue.try_put(job(1, "b", samples=300))
    assert not queue.try_put(job(2, "c", samples=100))


def test_the_running_job_counts_as_held_by_its_stream() -> None:
    """There is room for two. A flood with one running and one waiting still makes way."""
    told: list[Outcome] = []
    queue = JobQueue(2)
    queue.try_put(job(0, "flood"))
    take(queue)
    queue.try_put(job(1, "flood", deliver=told.append))
    assert queue.try_put(job(2, "modest"))
    assert [outcome.window.sequence for outcome in told] == [1]
    assert not queue.try_put(job(3, "flood"))
    finish(queue)
    assert sequences(queue) == [2]


def test_job_is_refused_exactly_when_it_would_be_late() -> None:
    """Seconds count, not places: windows of 1 s each against a promise of 3.5 s, with the rest of the running one."""
    now = [0.0]
    queue = JobQueue(100, AdmissionControl(3.5, EngineSpeed(1.0, 100, 5.0)), clock=lambda: now[0])
    assert [queue.try_put(job(n)) for n in range(4)] == [True, True, True, False]
    take(queue)
    now[0] = 0.4
    assert not queue.try_put(job(4))  # 0.6 s of the running one, two that wait, and itself: 3.6 s
    now[0] = 0.6
    assert queue.try_put(job(4))
    now[0] = 30.0  # an engine that takes longer than foreseen has no negative time left
    assert not queue.try_put(job(5))


def test_a_stream_in_front_of_a_flood_is_promised_its_turn() -> None:
    """The others' backlog counts only as far as round robin serves it first."""
    queue = JobQueue(100, AdmissionControl(4.5, EngineSpeed(1.0, 100, 5.0)), clock=lambda: 0.0)
    while queue.try_put(job(0, "flood")):
        pass
    assert queue.depth == 4
    assert queue.try_put(job(1, "modest"))
    assert queue.expected_wait("other") == pytest.approx(2.0)  # one turn of each
    assert queue.expected_wait("flood") == pytest.approx(5.0)


def test_an_empty_queue_takes_a_job_that_cannot_be_in_time() -> None:
    """Only a running job shows that the engine has become fast again."""
    queue = JobQueue(10, AdmissionControl(1.0, EngineSpeed(5.0, 100, 5.0)))
    assert queue.try_put(job(0))
    assert not queue.try_put(job(1))
    take(queue)
    assert not queue.try_put(job(1))
    finish(queue)
    assert queue.try_put(job(1))


def test_expected_wait_is_the_running_rest_and_work_served_first() -> None:
    """Status reports it: the wait of the stream's next window."""
    now = [0.0]
    queue = JobQueue(100, AdmissionControl(60.0, EngineSpeed(1.0, 100, 5.0)), clock=lambda: now[0])
    assert queue.expected_wait("s") == 0
    for n in range(3):
        queue.try_put(job(n))
    assert queue.expected_wait("s") == pytest.approx(3.0)
    take(queue)
    now[0] = 0.75
    assert queue.expected_wait("s") == pytest.approx(2.25)
    assert queue.expected_wait("new") == pytest.approx(1.25)


def test_a_partial_is_given_out_only_when_nothing_else_waits() -> None:
    """A closed window always goes before a look at an open one."""
    queue = JobQueue(2)
    queue.offer_partial(look(0, "a"))
    queue.try_put(job(1, "b"))
    queue.try_put(job(2, "b"))
    assert sequences(queue) == [1, 2]
    assert not queue.waiting
    taken = take(queue)
    assert taken is not None
    assert (taken.window.sequence, taken.partial) == (0, True)
    assert queue.depth == 0


def test_a_first_look_goes_before_the_others() -> None:
    """First text is worth more than newer text."""
    queue = JobQueue(1)
    for n, first in enumerate((False, True, False, True)):
        queue.offer_partial(replace(look(n, f"s{n}"), first=first))
    taken = []
    for _ in range(4):
        job_ = take(queue)
        assert job_ is not None
        taken.append(job_.window.sequence)
        finish(queue)
    assert taken == [1, 3, 0, 2]


def test_partials_have_no_place_in_the_capacity() -> None:
    """They keep no window out, neither waiting nor running."""
    queue = JobQueue(1)
    for n in range(5):
        queue.offer_partial(look(n, f"s{n}"))
    assert queue.depth == 0
    take(queue)
    assert queue.depth == 0
    assert queue.try_put(job(9))
    assert queue.depth == 1


def test_newer_partial_takes_the_turn_of_the_older_one() -> None:
    """Streams take turns, with one look each. Asking more often does not help."""
    queue = JobQueue(1)
    for n, stream in enumerate("abaaca"):
        queue.offer_partial(look(n, stream))
    taken = []
    for n in range(6):
        found = take(queue)
        assert found is not None
        taken.append((found.stream, found.window.sequence))
        finish(queue)
        queue.offer_partial(look(10 + n, found.stream))
    assert taken == [("a", 5), ("b", 1), ("c", 4), ("a", 10), ("b", 11), ("c", 12)]


def test_a_window_that_closes_takes_its_partial_along() -> None:
    """A look is useless once the window's own text is coming or the window was refused."""
    queue = JobQueue(1)
    queue.offer_partial(look(0, "a"))
    queue.offer_partial(look(1, "b"))
    queue.offer_partial(look(2, "c"))
    assert queue.try_put(job(3, "a"))
    assert not queue.try_put(job(4, "b"))
    assert sequences(queue) == [3]
    taken = take(queue)
    assert taken is not None
    assert taken.window.sequence == 2


def test_a_closed_queue_forgets_partials() -> None:
    """At the end only windows count."""
    queue = JobQueue(1)
    queue.offer_partial(look(0))
    queue.close()
    queue.offer_partial(look(1))
    assert take(queue) is None


def test_a_waiting_consumer_is_woken_by_a_partial() -> None:
    """An idle thread takes an offered look."""
    queue = JobQueue(1)
    taken: list[Job | None] = []
    thread = threading.Thread(target=lambda: taken.append(take(queue)))
    thread.start()
    queue.offer_partial(look(5))
    thread.join(timeout=10)
    assert taken
    assert taken[0] is not None
    assert taken[0].window.sequence == 5


def test_interruptible_work_is_asked_to_end_when_a_window_comes() -> None:
    """At once if a window waits or runs already. Not by a look at an open window, and not after its own end."""
    queue = JobQueue(3)
    with queue.preemptible() as earlier:
        pass
    with queue.preemptible() as stop, queue.preemptible() as other:
        queue.offer_partial(look(0))
        assert not stop.requested()
        assert queue.try_put(job(1))
        assert stop.requested()
        assert other.requested()
    assert not earlier.requested()
    assert take(queue) is not None
    with queue.preemptible() as late:
        assert late.requested()
    finish(queue)
    with queue.preemptible() as idle:
        assert not idle.requested()
