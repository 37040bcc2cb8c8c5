"""The daemon's life with stored audio: stand by, go on where the transcripts end, leave the rest to the next start."""

from __future__ import annotations

import asyncio
import math
import socket
from typing import TYPE_CHECKING
from uuid import uuid4

from transcriber.broker.durable import DurableSource
from transcriber.broker.lease import Lease
from transcriber.broker.transcripts import Transcripts
from transcriber.daemon.ending import within
from transcriber.daemon.service import Service
from transcriber.pipeline.durable import DurablePipeline

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from transcriber.broker.connection import Connection
    from transcriber.broker.requests import RequestService
    from transcriber.pipeline.parts import Parts


class DurableService(Service):
    """One daemon on JetStream. It ends with 5 when another one writes the same transcript."""

    _standing_by = False

    @property
    def _longest_wait(self) -> float:
        return math.inf

    async def _serve(
        self, connection: Connection, parts: Parts, requests: RequestService, stack: AsyncExitStack
    ) -> set[asyncio.Future[None]]:
        """Wait for the lease, then take stored audio and requests. Returns what must not end."""
        settings = self._settings
        lease = Lease(connection, settings.subject, self._name())
        self._standing_by = True
        await lease.acquire()
        self._standing_by = False
        stack.push_async_callback(lease.release)
        keeping = asyncio.create_task(lease.keep())
        stack.callback(keeping.cancel)
        transcripts = Transcripts(connection)
        standing = await transcripts.standing(settings.subject)
        pipeline = DurablePipeline(parts, transcripts, standing.checkpoints)
        stack.push_async_callback(self._finish_stored, pipeline, requests)
        source = DurableSource(
            connection,
            settings.subject,
            settings.input,
            begin=standing.begin,
            done={stream: at.cursor for stream, at in standing.checkpoints.items()},
            max_lag=settings.max_lag,
        )
        self._lag = lambda: source.lag
        keeping_time = asyncio.create_task(pipeline.keep_time(settings.status_interval, source))
        stack.callback(keeping_time.cancel)
        await requests.start()
        ingesting = asyncio.create_task(pipeline.ingest(source))
        stack.push_async_callback(self._leave_streams, requests, ingesting)
        return {keeping, keeping_time, ingesting, pipeline.failed}

    def _not_ready(self) -> str | None:
        """A standby is as ready as it can be: updates must not wait for it to work."""
        return None if self._standing_by and not self._stop.is_set() else super()._not_ready()

    @property
    def _state(self) -> str:
        state = super()._state
        return "standing by" if self._standing_by and state == "ready" else state

    def _name(self) -> str:
        """Who we are, the same after a restart: nobody else on this host has our port."""
        port = self._settings.health.port
        return f"{socket.gethostname()}:{port}" if port else uuid4().hex

    async def _leave_streams(self, requests: RequestService, ingesting: asyncio.Task[None]) -> None:
        """Take no more audio; what is open or not queued yet stays for the next start."""
        ingesting.cancel()
        await within(self._left, requests.stop())
        self._queue.close()

    async def _finish_stored(self, pipeline: DurablePipeline, requests: RequestService) -> None:
        """Let the worker finish what is queued, and store it, within the grace period."""
        self._queue.close()
        await within(self._left, self._worker.finished.wait())
        self._queue.abandon()
        await within(self._publishing_left, pipeline.stored())
        pipeline.stop_storing()
        await within(self._left, requests.give_up())
