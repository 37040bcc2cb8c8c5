"""The bounded queue: putting never waits, capacity counts what runs."""

from __future__ import annotations

import threading

import numpy as np

from transcriber.messages import Origin, Window
from transcriber.worker.queue import Job, JobQueue


def job(sequence: int) -> Job:
    return Job(Window(Origin("s", "x"), sequence, 0, 0, np.zeros(0, np.float32)), lambda _outcome: None)


def test_jobs_come_out_in_the_order_in_which_they_went_in() -> None:
    """First in, first out."""
    queue = JobQueue(5)
    assert all(queue.try_put(job(n)) for n in range(5))
    assert [(taken := queue.get()) and taken.window.sequence for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_full_queue_refuses_at_once_and_a_running_job_counts() -> None:
    """Capacity is waiting plus running: the place is free only when the job is done."""
    queue = JobQueue(2)
    assert queue.try_put(job(0))
    assert queue.try_put(job(1))
    assert not queue.try_put(job(2))
    queue.get()
    assert queue.depth == 2
    assert not queue.try_put(job(2))
    queue.done()
    assert queue.depth == 1
    assert queue.try_put(job(2))


def test_a_closed_queue_gives_out_what_it_holds_and_then_ends() -> None:
    """Nothing goes in after the close, nothing that was in is lost."""
    queue = JobQueue(2)
    queue.try_put(job(0))
    queue.close()
    assert not queue.try_put(job(1))
    assert queue.get() is not None
    assert queue.get() is None


def test_abandoning_hands_back_what_was_waiting() -> None:
    """What the worker did not get to can still be explained."""
    queue = JobQueue(3)
    for n in range(3):
        queue.try_put(job(n))
    queue.get()
    assert [j.window.sequence for j in queue.abandon()] == [1, 2]
    assert queue.get() is None


def test_a_waiting_consumer_is_woken_by_a_put_and_by_a_close() -> None:
    """`get` blocks only its own thread, and only until there is news."""
    queue = JobQueue(1)
    taken: list[Job | None] = []
    thread = threading.Thread(target=lambda: taken.extend([queue.get(), queue.get()]))
    thread.start()
    assert queue.try_put(job(7))
    queue.close()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert taken[0] is not None
    assert taken[1] is None
