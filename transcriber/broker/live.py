"""Reads audio from core NATS. The callback never waits; a full buffer drops audio and keeps its exact bounds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transcriber.domain.chunks import Arrival, Chunk, DroppedChunk, MalformedMessage
from transcriber.domain.errors import Rejection
from transcriber.protocol import incoming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from nats.aio.subscription import Subscription

    from transcriber.broker.connection import Connection

log = logging.getLogger(__name__)

# 32 MiB are 350 s of 48 kHz s16 mono, which one core takes in within a second. The buffer is for a stall of the event
# loop, not for a lack of CPU. It is half of what the server itself buffers for a slow client.
BUFFER_BYTES = 32 * 1024 * 1024
_BATCH = 32  # messages, about 5 ms of work; then other tasks of the event loop get their turn


_Message = tuple[bytes, bytes, bytes, float]  # subject, header block, payload, time of arrival


class LiveSource:
    """Subscribes to `subject` and yields what arrives, in order, through `arrivals`.

    Once the buffer is full, all audio is dropped until it is half empty, as one hole per stream. Dropping single chunks
    would leave many holes in every stream. Each hole costs an event and a log line, more than its chunk would have, so
    the daemon would never catch up.
    """

    def __init__(
        self, connection: Connection, subject: str, options: incoming.InputOptions, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        self._connection = connection
        self._subject = subject
        self._reader = incoming.ChunkReader(options)
        self._limit = buffer_bytes
        self._waiting: deque[_Message | _Hole | MalformedMessage] = deque()
        self._bytes = 0
        self._shedding = False  # from a full buffer until it is half empty
        self._holes: dict[bytes, _Hole] = {}  # by subject: the hole that grows at present
        self._news = asyncio.Event()
        self._ending = False
        self._subscription: Subscription | None = None

    @property
    def now(self) -> float:
        """Monotonic time in seconds."""
        return time.monotonic()

    @property
    def lag(self) -> None:
        """Live audio is not stored anywhere."""
        return None

    async def start(self) -> None:
        """Subscribe. Raises `BrokerError` when the server forbids it."""
        self._subscription = await self._connection.hand_over(self._subject, self._receive)

    async def stop(self) -> None:
        """Unsubscribe, and receive what the server has sent by then. Call `end` when that is done or takes too long."""
        if self._subscription is None:
            return
        if self._connection.up:
            await self._subscription.drain()  # type: ignore[no-untyped-call]
        else:  # otherwise a reconnect would renew it, for messages that nobody takes any more
            await self._subscription.unsubscribe()

    def end(self) -> None:
        """Make `arrivals` end after what has already arrived."""
        self._ending = True
        self._news.set()

    def kept(self) -> Iterator[Chunk]:
        """The chunks that have arrived and were not taken yet."""
        for item in self._waiting:
            if isinstance(item, tuple):
                with contextlib.suppress(Rejection):
                    yield self._reader.read(*item)

    def rest(self) -> Iterator[Arrival]:
        """Yield what has arrived with its audio dropped, when there is no time left to process it."""
        waiting, self._waiting = self._waiting, deque()
        self._holes.clear()
        for item in waiting:
            if isinstance(item, tuple):
                self._give_up(*item[:3])
            else:
                self._waiting.append(item)
                if isinstance(item, _Hole):
                    self._holes[item.subject] = item
        self._bytes = 0
        while self._waiting:
            yield self._take()

    async def arrivals(self) -> AsyncIterator[Arrival]:
        """Yield what arrives, until `end`. Gives other tasks a turn every few messages."""
        taken = 0
        while True:
            while self._waiting:
                yield self._take()
                taken += 1
                if taken % _BATCH == 0:
                    await asyncio.sleep(0)
            if self._ending:
                return
            self._news.clear()
            await self._news.wait()

    def _take(self) -> Arrival:
        item = self._waiting.popleft()
        if isinstance(item, MalformedMessage):
            return item
        if isinstance(item, _Hole):
            if self._holes.get(item.subject) is item:
                del self._holes[item.subject]
            return item.skipped
        subject, block, payload, arrived = item
        self._bytes -= len(payload)
        try:
            return self._reader.read(subject, block, payload, arrived)
        except Rejection as rejection:
            return _malformed(subject, block, rejection)

    def _receive(self, subject: bytes, block: bytes, payload: bytes) -> None:
        if self._shedding and 2 * self._bytes <= self._limit:
            self._shedding = False
            self._holes.clear()
        if payload and self._bytes + len(payload) > self._limit:
            self._shedding = True
        if self._shedding and payload:
            self._give_up(subject, block, payload)
        else:
            self._holes.pop(subject, None)
            self._bytes += len(payload)
            self._waiting.append((subject, block, payload, time.monotonic()))
        self._news.set()

    def _give_up(self, subject: bytes, block: bytes, payload: bytes) -> None:
        """Drop the audio but keep its bounds: the account must say which samples were dropped."""
        try:
            skipped = incoming.dropped_chunk(self._reader.read(subject, block, payload))
        except Rejection as rejection:
            self._waiting.append(_malformed(subject, block, rejection))
            return
        hole = self._holes.get(subject)
        if hole is not None and (longer := hole.skipped.merged(skipped)) is not None:
            hole.skipped = longer
        else:
            self._holes[subject] = hole = _Hole(subject, skipped)
            self._waiting.append(hole)


@dataclass(slots=True)
class _Hole:
    """Dropped audio of a subject that is not reported yet; it grows while it waits."""

    subject: bytes
    skipped: DroppedChunk


def _malformed(subject: bytes, block: bytes, rejection: Rejection) -> MalformedMessage:
    stream = incoming.name_in(incoming.subject_of(subject))
    session = incoming.session_of(incoming.fields(block)) if block else None
    return MalformedMessage(stream if incoming.is_stream(stream) else None, session, rejection)
