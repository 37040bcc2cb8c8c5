"""A member's work on stored audio: one pipeline for each of its partitions."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from transcriber.broker.jetstream import DurableSource
from transcriber.broker.transcripts import FENCE_BYTES, Transcripts
from transcriber.daemon.fleet_load import Load
from transcriber.daemon.shutdown import within
from transcriber.domain.errors import BrokerError, Fenced
from transcriber.domain.events import ConsumerLag, TakenOver
from transcriber.domain.records import Record
from transcriber.domain.timeline import Origin
from transcriber.fleet.holder import Figures
from transcriber.pipeline.durable import DurablePipeline, Room
from transcriber.protocol.checkpoints import encode_record
from transcriber.protocol.partitions import subject_of_partition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transcriber.audio.sessions import Sessions
    from transcriber.broker.transcripts import ResumePoint
    from transcriber.daemon.running import Running
    from transcriber.daemon.state import Grace
    from transcriber.daemon.status import SessionGroup
    from transcriber.protocol.partitions import FleetOptions
    from transcriber.settings import Settings

log = logging.getLogger(__name__)

_RETRY_SECS = 1.0  # between two attempts to read where the transcripts end
# Attempts in a row to take over streams into which the old owner still writes. It may have one record of each on its
# way, so a second one is enough.
_ATTEMPTS = 5


@dataclass(slots=True, kw_only=True)
class _Share:
    """One partition at work."""

    epoch: int
    sessions: Sessions
    pipeline: DurablePipeline
    source: DurableSource
    load: Load
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class DurableShares:
    """Holds partitions of stored audio. `failed` gets the error that ends the daemon."""

    prepares = False

    def __init__(self, running: Running, settings: Settings, fleet: FleetOptions, sessions: SessionGroup) -> None:
        self._running = running
        self._settings = settings
        self._fleet = fleet
        self._group = sessions
        self._room = Room()
        self._transcripts = Transcripts(running.connection, lambda: self.valid())  # noqa: PLW0108 - it is set later
        self._shares: dict[int, _Share] = {}
        self._mending: set[asyncio.Task[None]] = set()
        self.member = ""
        self.valid: Callable[[], bool] = lambda: True
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def lag(self) -> ConsumerLag:
        """How far stored audio is ahead: chunks over all partitions, and the most seconds."""
        lags = [share.source.lag for share in self._shares.values()]
        return ConsumerLag(sum(lag.chunks for lag in lags), max((lag.seconds for lag in lags), default=0.0))

    def figures(self) -> Figures:
        """What this member carries and could carry now."""
        loads = {p: share.load.measured(share.source.now) for p, share in self._shares.items()}
        wait = self._running.queue.expected_wait("")
        return Figures(capacity=self._running.capacity(), loads=loads, wait=wait, lag=self.lag.seconds)

    async def prepare(self, partition: int) -> None:
        """Do nothing: stored audio waits."""

    async def start(self, batch: Mapping[int, tuple[int, bool]]) -> None:
        """Go on where the transcripts end. What the last owner did not give up in order is fenced off first."""
        left = dict(batch)
        for attempt in range(_ATTEMPTS):
            points = await self._resume_points(list(left))
            for partition, point in points.items():
                epoch, clean = left[partition]
                try:
                    if not clean:
                        await self._fence(point, epoch)
                except Fenced as error:
                    log.warning("the old owner still writes: %s; reading again", error, extra={"partition": partition})
                    continue
                self._open(partition, epoch, point)
                log.debug("works on a partition", extra={"partition": partition, "epoch": epoch})
                del left[partition]
            if not left:
                return
            await asyncio.sleep(attempt * _RETRY_SECS)
        raise Fenced(f"partitions {sorted(left)} of the fleet", "somebody else writes their transcripts")

    async def _resume_points(self, partitions: list[int]) -> dict[int, ResumePoint]:
        while True:
            try:
                return await self._transcripts.resume_points(self._fleet, partitions)
            except BrokerError as error:
                if not self._shares:  # at the start of the daemon
                    raise
                log.warning("%s; trying again", error, extra={"limited": True})
                await asyncio.sleep(_RETRY_SECS)

    async def _fence(self, point: ResumePoint, epoch: int) -> None:
        """Store an event in every stream that the old owner may still write. Raises `Fenced` if it just has."""
        for stream in sorted(point.unsettled):
            at = point.checkpoints.get(stream)
            origin = Origin(stream, "") if at is None else at.origin
            record = Record(TakenOver(origin, self.member, epoch), at)
            room = self._running.connection.max_payload - FENCE_BYTES
            await self._transcripts.store(stream, encode_record(record, time.time_ns(), room))

    def _open(self, partition: int, epoch: int, point: ResumePoint) -> None:
        settings = self._settings
        sessions = self._group.make()
        parts = self._running.make_parts(sessions)
        pipeline = DurablePipeline(parts, self._transcripts, point.checkpoints, point.moved, self._room)
        source = DurableSource(
            self._running.connection,
            subject_of_partition(partition),
            settings.input,
            begin=point.begin,
            done={stream: at.cursor for stream, at in point.checkpoints.items()},
            max_lag=settings.max_lag,
            also=point.old,
            allowed=self.valid,
        )
        share = _Share(
            epoch=epoch, sessions=sessions, pipeline=pipeline, source=source, load=Load(sessions, source.now)
        )
        share.tasks = [
            asyncio.create_task(pipeline.ingest(source)),
            asyncio.create_task(pipeline.keep_time(settings.status_interval, source)),
        ]
        self._shares[partition] = share
        for ending in (*share.tasks, pipeline.failed):
            ending.add_done_callback(partial(self._on_end, partition, share))

    def _on_end(self, partition: int, share: _Share, ended: asyncio.Future[None]) -> None:
        """Note what ended a partition's work. A record of the old owner that came late is no reason to stop."""
        error = None if ended.cancelled() else ended.exception()
        if error is None or self._shares.get(partition) is not share:
            return
        if isinstance(error, Fenced) and self.valid():
            log.warning("%s; reading the partition again", error, extra={"partition": partition})
            mending = asyncio.create_task(self._mend(partition, share))
            self._mending.add(mending)
            mending.add_done_callback(self._mending.discard)
        elif not self.failed.done():
            self.failed.set_exception(error)

    async def _mend(self, partition: int, share: _Share) -> None:
        try:
            await self._close(partition, share)
            await self.start({partition: (share.epoch, False)})
        except Exception as error:  # noqa: BLE001 - any error ends the daemon
            if not self.failed.done():
                self.failed.set_exception(error)

    async def drain(self, partition: int) -> None:
        """Take no more audio; finish and store the windows in the engine. The open ones are left to the next owner."""
        share = self._shares.get(partition)
        if share is None:
            return
        log.debug("drains a partition", extra={"partition": partition})
        for task in share.tasks:
            task.cancel()
        await share.pipeline.give_up()
        await self._close(partition, share)

    async def forget(self, partition: int) -> None:
        """Do nothing: a drained partition is closed."""

    async def _close(self, partition: int, share: _Share) -> None:
        self._shares.pop(partition, None)
        for task in share.tasks:
            task.cancel()
        share.pipeline.leave()
        self._group.discard(share.sessions)
        await share.source.close()

    async def end_input(self, _grace: Grace) -> None:
        """Take no more audio. Open windows are left to the next owner."""
        for share in self._shares.values():
            for task in share.tasks:
                task.cancel()

    async def settle(self, grace: Grace) -> None:
        """Store what was decided. Windows that nobody has decoded are left to the next owner."""
        self._running.queue.abandon()
        if self.valid():
            stored = (share.pipeline.stored() for share in self._shares.values())
            await within(grace.publishing_left, asyncio.gather(*stored))
        for share in self._shares.values():
            share.pipeline.stop_storing()
