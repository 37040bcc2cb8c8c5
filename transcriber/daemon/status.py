"""Reads the daemon's figures for metrics, probes, the status page, and the last line of the log."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING
from uuid import uuid4

from transcriber.audio.sessions import Sessions
from transcriber.domain.events import ConsumerLag
from transcriber.domain.measurements import FleetFigures, Snapshot, Tallies
from transcriber.domain.timeline import SAMPLE_RATE
from transcriber.worker.engine import Device

if TYPE_CHECKING:
    from collections.abc import Callable

    from transcriber.audio.session import SessionOptions
    from transcriber.broker.connection import Connection
    from transcriber.worker.queue import JobQueue
    from transcriber.worker.thread import WhisperThread

log = logging.getLogger(__name__)

_WEDGED_SECS = 60.0  # a window counts as stuck in the engine after this at the earliest: twice Whisper's longest window


def new_id() -> str:
    """Return an id for a session whose chunks have none."""
    return uuid4().hex


class SessionGroup:
    """The sessions of several partitions, with their figures added up."""

    def __init__(self, options: SessionOptions, tallies: Tallies) -> None:
        self._options = options
        self._tallies = tallies
        self._members: list[Sessions] = []
        self.refuse: Callable[[], str | None] = lambda: None  # as in `Sessions`

    def make(self) -> Sessions:
        """Return the sessions of one more partition."""
        made = Sessions(self._options, new_id, self._tallies)
        made.refuse = self.refuse
        self._members.append(made)
        return made

    def discard(self, sessions: Sessions) -> None:
        """Leave out the sessions of a partition."""
        if sessions in self._members:
            self._members.remove(sessions)

    @property
    def buffered(self) -> int:
        """Samples that are in no span yet."""
        return sum(one.buffered for one in tuple(self._members))

    @property
    def active(self) -> int:
        """Number of streams with a session that has not ended."""
        return sum(one.active for one in tuple(self._members))

    @property
    def unsettled(self) -> int:
        """Samples without a fate."""
        return sum(one.unsettled for one in tuple(self._members))


def snapshot(  # noqa: PLR0913 - the parts whose figures it holds
    worker: WhisperThread,
    queue: JobQueue | None,
    sessions: Sessions | SessionGroup,
    connection: Connection | None,
    *,
    lag: ConsumerLag | None,
    max_latency: float,
    fleet: FleetFigures | None = None,
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
        fleet=fleet,
    )


def summarise(tallies: Tallies, queue: JobQueue | None, sessions: Sessions | SessionGroup) -> None:
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
