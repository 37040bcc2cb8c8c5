"""A member's work on live audio: a subscription and a pipeline for each of its partitions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from transcriber.broker.live import LiveSource
from transcriber.broker.patience import AWAY
from transcriber.daemon.fleet_load import Load
from transcriber.daemon.shutdown import within
from transcriber.domain.chunks import Chunk, DroppedChunk
from transcriber.fleet.holder import Figures
from transcriber.pipeline.live import LivePipeline
from transcriber.protocol.partitions import subject_of_partition
from transcriber.protocol.positions import Last, Positions, decode_positions, encode_positions, last_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from transcriber.audio.sessions import Sessions
    from transcriber.broker.fleet import FleetStore
    from transcriber.daemon.running import Running
    from transcriber.daemon.state import Grace
    from transcriber.daemon.status import SessionGroup
    from transcriber.domain.chunks import Arrival
    from transcriber.settings import Settings

log = logging.getLogger(__name__)

_BUFFER_BYTES = 4 * 1024 * 1024  # 44 s of 48 kHz s16 mono: a hand-over takes a second, and a partition has few streams
_UNSUBSCRIBE_SECS = 1.0  # a round trip takes milliseconds
_RECENT_SECS = 10.0  # many times what a hand-over takes
_POSITION_SECS = 1.0  # between two positions of a partition
_AFTER_SECS = 0.1  # from a text to its position: it is sent by then, and others that come with it share the position


class Subscribed:
    """A partition's audio. What came before its owner began is kept, and then taken up where the last owner ended."""

    def __init__(self, source: LiveSource) -> None:
        self.source = source
        self._last: dict[str, tuple[Last, float]] = {}  # the newest message taken of each stream, and when
        self._skip: dict[str, Last] = {}

    @property
    def now(self) -> float:
        """Monotonic time in seconds."""
        return self.source.now

    @property
    def lag(self) -> None:
        """Live audio is not stored anywhere."""
        return None

    def recent(self) -> dict[str, Last]:
        """The newest message taken of each stream that has sent one lately: the next owner may have it too."""
        since = self.now - _RECENT_SECS
        self._last = {stream: known for stream, known in self._last.items() if known[1] >= since}
        return {stream: last for stream, (last, _) in self._last.items()}

    def after(self, last: Mapping[str, Last]) -> None:
        """Leave out what the last owner has taken: of each stream, all up to its newest message, if that is here."""
        here = {(chunk.stream, last_of(chunk)) for chunk in self.source.kept()}
        self._skip = {stream: one for stream, one in last.items() if (stream, one) in here}

    async def arrivals(self) -> AsyncIterator[Arrival]:
        """Yield what arrives, until the source ends."""
        async for arrival in self.source.arrivals():
            if isinstance(arrival, Chunk | DroppedChunk):
                stream = arrival.stream if isinstance(arrival, Chunk) else arrival.chunk.stream
                one = last_of(arrival)
                self._last[stream] = one, self.now
                if (until := self._skip.get(stream)) is not None:
                    if until == one:
                        del self._skip[stream]
                    continue
            yield arrival


@dataclass(slots=True, kw_only=True)
class _Share:
    """One partition at work."""

    sessions: Sessions
    pipeline: LivePipeline
    subscribed: Subscribed
    load: Load
    revision: int  # of the positions that we have read or written last
    ingesting: asyncio.Task[None]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class LiveShares:
    """Holds partitions of live audio. `failed` gets the error that ends the daemon."""

    prepares = True

    def __init__(self, running: Running, settings: Settings, store: FleetStore, sessions: SessionGroup) -> None:
        self._running = running
        self._settings = settings
        self._store = store
        self._group = sessions
        self._prepared: dict[int, Subscribed] = {}
        self._shares: dict[int, _Share] = {}
        self.valid: Callable[[], bool] = lambda: True
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def lag(self) -> None:
        """Live audio is not stored anywhere."""
        return None

    def figures(self) -> Figures:
        """What this member carries and could carry now."""
        loads = {p: share.load.measured(time.monotonic()) for p, share in self._shares.items()}
        return Figures(capacity=self._running.capacity(), loads=loads, wait=self._running.queue.expected_wait(""))

    async def prepare(self, partition: int) -> None:
        """Subscribe, and keep what comes."""
        fleet, options = self._settings.fleet, self._settings.input
        subject = subject_of_partition(partition, "" if fleet is None else fleet.group)
        subscribed = Subscribed(LiveSource(self._running.connection, subject, options, _BUFFER_BYTES))
        await subscribed.source.start()
        self._prepared[partition] = subscribed

    async def start(self, batch: Mapping[int, tuple[int, bool]]) -> None:
        """Go on where the last owner ended, as far as it has said so."""
        await asyncio.gather(*(self.prepare(partition) for partition in batch if partition not in self._prepared))
        found = await asyncio.gather(*(self._positions(partition) for partition in batch))
        for (partition, (epoch, clean)), (positions, revision) in zip(batch.items(), found, strict=True):
            self._open(partition, positions, revision, clean=clean)
            log.debug("works on a partition", extra={"partition": partition, "epoch": epoch})

    async def _positions(self, partition: int) -> tuple[Positions, int]:
        """Where the streams of a partition are settled, and its revision. None of them, if that was told long ago."""
        revision = 0
        try:
            payload, revision = await self._store.position(partition)
            found = Positions(0.0) if payload is None else decode_positions(payload)
        except (*AWAY, ValueError) as error:
            log.warning("positions of a partition cannot be read: %s", error, extra={"partition": partition})
            return Positions(0.0), revision
        recent = time.time() - found.at < self._settings.sessions.session_timeout
        return found if recent else Positions(0.0), revision

    def _open(self, partition: int, positions: Positions, revision: int, *, clean: bool) -> None:
        subscribed, now = self._prepared.pop(partition), time.monotonic()
        sessions = self._group.make()
        for at in positions.sessions:
            sessions.resume(at, now)
        if clean:
            subscribed.after(positions.last)
        pipeline = LivePipeline(self._running.make_parts(sessions))
        keeping_time = pipeline.keep_time(self._settings.status_interval, subscribed)
        share = _Share(
            sessions=sessions,
            pipeline=pipeline,
            subscribed=subscribed,
            load=Load(sessions, now),
            revision=revision,
            ingesting=asyncio.create_task(pipeline.ingest(subscribed)),
        )
        share.tasks = [asyncio.create_task(keeping_time), asyncio.create_task(self._tell(partition, share))]
        self._shares[partition] = share
        for task in (share.ingesting, *share.tasks):
            task.add_done_callback(partial(self._on_end, partition, share))

    def _on_end(self, partition: int, share: _Share, ended: asyncio.Future[None]) -> None:
        error = None if ended.cancelled() else ended.exception()
        if error is not None and self._shares.get(partition) is share and not self.failed.done():
            self.failed.set_exception(error)

    async def _tell(self, partition: int, share: _Share) -> None:
        """Write the positions after each text, and once a second as long as they change: we may die."""
        told, published = Positions(0.0), share.pipeline.published
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(published.wait(), _POSITION_SECS)
                await asyncio.sleep(_AFTER_SECS)
            published.clear()
            now = self._now(share)
            if (now.sessions, now.last) == (told.sessions, told.last):
                continue
            try:
                if self.valid() and await self._replace(partition, share, now):
                    told = now
            except AWAY as error:
                log.debug("positions are not written: %s", error)

    async def _replace(self, partition: int, share: _Share, positions: Positions) -> bool:
        """Write positions in place of those that we know. If there are others, know those; returns whether it worked.

        What an owner before us wrote comes late if its network was cut, and the answer to our own may have been lost.
        """
        written = await self._store.write_position(partition, encode_positions(positions), share.revision)
        if written is None:
            _, share.revision = await self._store.position(partition)
            return False
        share.revision = written
        return True

    @staticmethod
    def _now(share: _Share) -> Positions:
        settled = tuple(share.sessions.position(session) for session in share.sessions.current.values())
        return Positions(time.time(), settled, share.subscribed.recent())

    async def drain(self, partition: int) -> None:
        """Unsubscribe, take in what has come, close and decode the open windows, and write the positions."""
        share = self._shares.get(partition)
        if share is None:
            return
        log.debug("drains a partition", extra={"partition": partition})
        await within(_UNSUBSCRIBE_SECS, share.subscribed.source.stop())
        share.subscribed.source.end()
        await asyncio.gather(share.ingesting, return_exceptions=True)
        for task in share.tasks:
            task.cancel()
        await share.pipeline.hand_over(self._settings.max_latency)
        await self._write(partition, share)
        self._shares.pop(partition, None)
        self._group.discard(share.sessions)

    async def _write(self, partition: int, share: _Share) -> None:
        """Write the last positions. If that cannot be done, the next owner takes those of a second before."""
        for _ in range(3):
            try:
                if await self._replace(partition, share, self._now(share)):
                    return
            except AWAY as error:
                log.warning("positions are not written: %s", error, extra={"partition": partition})

    async def forget(self, partition: int) -> None:
        """Stop listening to a partition that somebody else gets."""
        subscribed = self._prepared.pop(partition, None)
        if subscribed is not None:
            await within(_UNSUBSCRIBE_SECS, subscribed.source.stop())

    async def end_input(self, grace: Grace) -> None:
        """Take no more audio, process what has arrived, and turn buffered audio into last windows."""
        shares = list(self._shares.values())
        stopping = (share.subscribed.source.stop() for share in shares)
        await within(min(_UNSUBSCRIBE_SECS, grace.left), asyncio.gather(*stopping, return_exceptions=True))
        for share in shares:
            share.subscribed.source.end()
        await within(grace.left / 2, asyncio.gather(*(share.ingesting for share in shares), return_exceptions=True))
        for share in shares:
            for arrival in share.subscribed.source.rest():
                share.pipeline.receive(arrival, time.monotonic())
            share.pipeline.end_all()

    async def settle(self, _grace: Grace) -> None:
        """Turn the windows that are left into gaps."""
        for share in self._shares.values():
            for task in share.tasks:
                task.cancel()
            share.pipeline.give_up()
