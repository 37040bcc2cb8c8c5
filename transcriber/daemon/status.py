"""Reads the daemon's figures for metrics, probes, the status page, and the last line of the log."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from transcriber.domain.events import ConsumerLag
from transcriber.domain.measurements import Snapshot, Tallies
from transcriber.domain.timeline import SAMPLE_RATE
from transcriber.protocol.routing import model_subject
from transcriber.telemetry.process import footprint
from transcriber.worker.engine import Device

if TYPE_CHECKING:
    from transcriber.audio.sessions import Sessions
    from transcriber.broker.connection import Connection
    from transcriber.settings import Settings
    from transcriber.worker.queue import JobQueue
    from transcriber.worker.thread import WhisperThread

log = logging.getLogger(__name__)

_WEDGED_SECS = 60.0  # a window counts as stuck in the engine after this at the earliest: twice Whisper's longest window


def snapshot(  # noqa: PLR0913 - the parts whose figures it holds
    worker: WhisperThread,
    queue: JobQueue | None,
    sessions: Sessions,
    connection: Connection | None,
    *,
    lag: ConsumerLag | None,
    max_latency: float,
) -> Snapshot:
    """Read all figures at this moment."""
    ahead = lag or ConsumerLag(0, 0.0)
    return Snapshot(
        queue_depth=queue.depth if queue is not None else 0,
        queue_capacity=queue.capacity if queue is not None else 0,
        busy=worker.busy_seconds,
        rtf=worker.speed.rtf,
        buffered=sessions.buffered / SAMPLE_RATE,
        pending=sessions.unsettled / SAMPLE_RATE,
        max_latency=max_latency,
        connected=connection is not None and connection.connected.is_set(),
        reconnects=connection.reconnects if connection is not None else 0,
        gpu=worker.device is Device.CUDA,
        lag_chunks=ahead.chunks,
        lag_seconds=ahead.seconds,
    )


def worker_state(
    worker: WhisperThread, queue: JobQueue | None, sessions: Sessions, settings: Settings
) -> dict[str, Any]:
    """Return what the service's statistics say of this worker (P-38)."""
    return {
        "model": worker.model,
        "model_subject": model_subject(worker.model),
        "multilingual": worker.multilingual,
        "device": str(worker.device),
        "subject": settings.subject,
        "depth": queue.depth if queue is not None else 0,
        "capacity": queue.capacity if queue is not None else 0,
        "estimated_wait": queue.expected_wait("") if queue is not None else 0.0,
        "max_latency": None if settings.durable else settings.max_latency,
        "rtf": worker.speed.rtf,
        "busy": worker.busy_since is not None,
        "busy_seconds": worker.busy_seconds,
        "streams": sessions.active,
        "max_streams": settings.sessions.max_streams,
        **footprint(gpu=worker.device is Device.CUDA),
    }


def summarise(tallies: Tallies, queue: JobQueue | None, sessions: Sessions) -> None:
    """Log one line that says what this run did."""
    seconds = {str(fate): round(tallies.audio.total(fate) / SAMPLE_RATE, 3) for fate in tallies.audio.kinds()}
    log.info(
        "stopped",
        extra={
            "jobs_enqueued": tallies.jobs_enqueued.grand_total(),
            "jobs_dropped": tallies.jobs_dropped.grand_total(),
            "queue_depth": queue.depth if queue is not None else 0,
            "seconds": seconds | {"pending": round(sessions.unsettled / SAMPLE_RATE, 3)},
        },
    )


def wedged(worker: WhisperThread, max_latency: float) -> str | None:
    """Return the problem if the engine has been decoding one window for far too long."""
    since, limit = worker.busy_since, max(_WEDGED_SECS, 3 * max_latency)
    if since is not None and time.monotonic() - since > limit:
        return f"the engine has been decoding one window for more than {limit:g} s"
    return None
