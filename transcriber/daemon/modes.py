"""The two modes of a daemon: live audio from NATS, or stored audio from JetStream. Each has its own start and stop."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from transcriber.audio.sessions import Sessions
from transcriber.broker.jetstream import DurableSource
from transcriber.broker.lease import Lease
from transcriber.broker.live import LiveSource
from transcriber.broker.transcripts import Transcripts
from transcriber.daemon.shutdown import within
from transcriber.daemon.state import State
from transcriber.daemon.status import new_id
from transcriber.pipeline.durable import DurablePipeline
from transcriber.pipeline.live import LivePipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from transcriber.daemon.running import Running
    from transcriber.daemon.state import Grace
    from transcriber.daemon.status import SessionGroup
    from transcriber.domain.events import ConsumerLag
    from transcriber.domain.measurements import FleetFigures, Tallies
    from transcriber.settings import Settings

_UNSUBSCRIBE_SECS = 1.0  # a round trip takes milliseconds; do not wait longer for a server that does not answer
_ANSWER_SECS = 0.25  # time to send the refusals


class Mode(Protocol):
    """One way to get audio. `end_input` and `settle` may be called at any time after `start` was called."""

    @property
    def sessions(self) -> Sessions | SessionGroup:
        """The sessions, for their figures."""
        ...

    @property
    def longest_wait(self) -> float:
        """Seconds after which a window is given up."""
        ...

    @property
    def fleet(self) -> FleetFigures | None:
        """The fleet as this member sees it; None without one."""
        ...

    @property
    def fleet_view(self) -> Callable[[], dict[str, Any]] | None:
        """Returns what the fleet page shows; None without a fleet."""
        ...

    @property
    def lag(self) -> ConsumerLag | None:
        """How far stored audio is ahead of the daemon; None for live audio."""
        ...

    async def start(self, running: Running, enter: Callable[[State], None]) -> set[asyncio.Future[None]]:
        """Begin to take audio and requests. Returns tasks whose end stops the daemon. `enter` gets new states."""
        ...

    async def end_input(self, grace: Grace) -> None:
        """Take no more audio."""
        ...

    async def settle(self, grace: Grace) -> None:
        """Let the worker finish the queue, and settle the windows that it has no time for."""
        ...


class LiveMode:
    """Live audio. Windows that there is no time for become gaps."""

    fleet = None
    fleet_view = None

    def __init__(self, settings: Settings, tallies: Tallies) -> None:
        self._settings = settings
        self.sessions = Sessions(settings.sessions, new_id, tallies)
        self._running: Running | None = None
        self._pipeline: LivePipeline | None = None
        self._source: LiveSource | None = None
        self._ingesting: asyncio.Task[None] | None = None
        self._keeping_time: asyncio.Task[None] | None = None

    @property
    def longest_wait(self) -> float:
        return self._settings.max_latency

    @property
    def lag(self) -> ConsumerLag | None:
        return None

    async def start(self, running: Running, enter: Callable[[State], None]) -> set[asyncio.Future[None]]:  # noqa: ARG002 - live mode has no state of its own
        self._running, self._pipeline = running, LivePipeline(running.make_parts(self.sessions))
        source = LiveSource(running.connection, self._settings.subject, self._settings.input)
        self._keeping_time = asyncio.create_task(self._pipeline.keep_time(self._settings.status_interval, source))
        await running.requests.start()
        await source.start()
        self._source = source
        self._ingesting = asyncio.create_task(self._pipeline.ingest(source))
        return {self._keeping_time, self._ingesting}

    async def end_input(self, grace: Grace) -> None:
        """Take no more audio, process what has arrived, and turn buffered audio into last windows."""
        if self._running is None:
            return
        if self._pipeline is not None and self._source is not None and self._ingesting is not None:
            stopping = asyncio.gather(self._running.requests.stop(), self._source.stop(), return_exceptions=True)
            await within(min(_UNSUBSCRIBE_SECS, grace.left), stopping)
            self._source.end()
            await within(grace.left / 2, self._ingesting)  # the other half is for what is queued
            for arrival in self._source.rest():
                self._pipeline.receive(arrival, time.monotonic())
            self._pipeline.end_all()
        self._running.queue.close()

    async def settle(self, grace: Grace) -> None:
        """Let the worker finish the queue within the grace period. Windows that are left become gaps."""
        if self._keeping_time is not None:
            self._keeping_time.cancel()
        if self._running is None or self._pipeline is None:
            return
        await within(grace.left, self._running.worker.finished.wait())
        self._pipeline.give_up()
        await within(_ANSWER_SECS, self._running.requests.give_up())


class DurableMode:
    """Stored audio, from where the transcripts end. The next start does what there is no time for."""

    fleet = None
    fleet_view = None

    def __init__(self, settings: Settings, tallies: Tallies) -> None:
        self._settings = settings
        self.sessions = Sessions(settings.sessions, new_id, tallies)
        self._running: Running | None = None
        self._lease: Lease | None = None
        self._pipeline: DurablePipeline | None = None
        self._source: DurableSource | None = None
        self._ingesting: asyncio.Task[None] | None = None
        self._keeping_lease: asyncio.Task[None] | None = None
        self._keeping_time: asyncio.Task[None] | None = None

    @property
    def longest_wait(self) -> float:
        return math.inf

    @property
    def lag(self) -> ConsumerLag | None:
        return self._source.lag if self._source is not None else None

    async def start(self, running: Running, enter: Callable[[State], None]) -> set[asyncio.Future[None]]:
        """Wait for the lease, then take stored audio and requests."""
        self._running, settings, connection = running, self._settings, running.connection
        lease = Lease(connection, settings.subject, self._name())
        enter(State.STANDING_BY)
        await lease.acquire()
        enter(State.STARTING)
        self._lease = lease
        self._keeping_lease = asyncio.create_task(lease.keep())
        transcripts = Transcripts(connection)
        resume_point = await transcripts.resume_point(settings.subject)
        parts = running.make_parts(self.sessions)
        self._pipeline = DurablePipeline(parts, transcripts, resume_point.checkpoints, resume_point.moved)
        self._source = DurableSource(
            connection,
            settings.subject,
            settings.input,
            begin=resume_point.begin,
            done={stream: at.cursor for stream, at in resume_point.checkpoints.items()},
            max_lag=settings.max_lag,
        )
        self._keeping_time = asyncio.create_task(self._pipeline.keep_time(settings.status_interval, self._source))
        await running.requests.start()
        self._ingesting = asyncio.create_task(self._pipeline.ingest(self._source))
        return {self._keeping_lease, self._keeping_time, self._ingesting, self._pipeline.failed}

    async def end_input(self, grace: Grace) -> None:
        """Take no more audio. Open windows, and windows that are not queued yet, are left to the next start."""
        if self._running is None:
            return
        if self._ingesting is not None:
            self._ingesting.cancel()
            await within(grace.left, self._running.requests.stop())
        self._running.queue.close()

    async def settle(self, grace: Grace) -> None:
        """Let the worker finish the queue and store the results within the grace period; release the lease."""
        if self._keeping_time is not None:
            self._keeping_time.cancel()
        if self._running is not None and self._pipeline is not None:
            await within(grace.left, self._running.worker.finished.wait())
            self._running.queue.abandon()
            await within(grace.publishing_left, self._pipeline.stored())
            self._pipeline.stop_storing()
            await within(grace.left, self._running.requests.give_up())
        if self._keeping_lease is not None:
            self._keeping_lease.cancel()
        if self._lease is not None:
            await self._lease.release()

    def _name(self) -> str:
        """Return a name that is unique, and the same after a restart: no other process on this host has our port."""
        port = self._settings.health.port
        return f"{socket.gethostname()}:{port}" if port else uuid4().hex


def mode_for(settings: Settings, tallies: Tallies) -> Mode:
    """Return the mode that the settings choose."""
    if settings.fleet is not None:
        from transcriber.daemon.fleet_mode import FleetMode  # noqa: PLC0415 - one daemon alone needs none of it

        return FleetMode(settings, settings.fleet, tallies)
    return DurableMode(settings, tallies) if settings.durable else LiveMode(settings, tallies)
