"""How busy all workers are, as one answer."""

from __future__ import annotations

import pytest

from transcriber.gateway.dialects.decode_stream import QueueStatus
from transcriber.gateway.raw_pcm import queue_status
from transcriber.gateway.workers import Worker


def test_queue_status_sums_up_the_workers() -> None:
    """Queues add up. The wait is the shortest, because that worker gets what comes next; the speed is the average."""
    workers = [
        Worker(id="a", depth=2, capacity=8, estimated_wait=3.0, rtf=0.1),
        Worker(id="b", depth=1, capacity=4, estimated_wait=0.5, rtf=0.3),
        Worker(id="old"),
    ]
    status = queue_status(workers[:2])
    assert (status.pending, status.capacity, status.estimated_wait, status.workers) == (3, 12, 0.5, 2)
    assert status.rtf == pytest.approx(0.2)
    assert queue_status(workers).rtf == pytest.approx(0.2)


def test_queue_status_without_workers_promises_nothing() -> None:
    assert queue_status([]) == QueueStatus(pending=0, capacity=0, estimated_wait=None, rtf=None, workers=0)
