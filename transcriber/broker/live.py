"""Audio from core NATS: the callback never waits; when we fall behind, our own buffer drops, with known bounds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from transcriber.broker import wire
from transcriber.errors import Rejection
from transcriber.messages import Chunk, Skipped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from nats.aio.subscription import Subscription

    from transcriber.broker.connection import Connection
    from transcriber.messages import Cursor

log = logging.getLogger(__name__)

# 32 MiB are 350 s of 48 kHz s16 mono, which one core takes in within a second: a buffer for a stall of the event loop,
# not for a shortage of CPU, and half of what the server itself holds back for a slow client.
BUFFER_BYTES = 32 * 1024 * 1024
_BATCH = 32  # messages between two looks at the rest of the event loop: about 5 ms of work


class Refused:
    """A message that breaks the wire protocol; `stream` is None when not even that can be told."""

    __slots__ = ("cursor", "rejection", "session", "stream")

    def __init__(
        self, stream: str | None, session: str | None, rejection: Rejection, cursor: Cursor | None = None
    ) -> None:
        self.stream = stream
        self.session = session
        self.rejection = rejection
        self.cursor = cursor  # where it is stored


Arrival = Chunk | Skipped | Refused


class LiveSource:
    """Subscribes to `subject` and gives out what arrives, in order, through `arrivals`."""

    def __init__(
        self, connection: Connection, subject: str, options: wire.InputOptions, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        self._connection = connection
        self._subject = subject
        self._options = options
        self._limit = buffer_bytes
        self._waiting: deque[tuple[str, Mapping[str, str] | None, bytes, float] | Skipped | Refused] = deque()
        self._bytes = 0
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
        """Unsubscribe, and take what the server had sent until then; call `end` when that is done or takes too long."""
        if self._subscription is None:
            return
        if self._connection.up:
            await self._subscription.drain()  # type: ignore[no-untyped-call]
        else:  # or it would be renewed with the connection, for messages that nobody takes any more
            await self._subscription.unsubscribe()

    def end(self) -> None:
        """Let `arrivals` end after what is already here."""
        self._ending = True
        self._news.set()

    def rest(self) -> Iterator[Arrival]:
        """What is still here, its audio given up: for when there is no time left to take it in."""
        while self._waiting:
            item = self._waiting.popleft()
            yield self._skipped(*item[:3]) if isinstance(item, tuple) else item
        self._bytes = 0

    async def arrivals(self) -> AsyncIterator[Arrival]:
        """Yield what arrived until `end`. Lets the event loop breathe every few messages."""
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
        if not isinstance(item, tuple):
            return item
        subject, headers, payload, arrived = item
        self._bytes -= len(payload)
        try:
            return wire.parse(subject, headers, payload, self._options, arrived)
        except Rejection as rejection:
            return _refused(subject, headers, rejection)

    def _receive(self, subject: str, headers: Mapping[str, str] | None, payload: bytes) -> None:
        if self._bytes + len(payload) <= self._limit:
            self._bytes += len(payload)
            self._waiting.append((subject, headers, payload, time.monotonic()))
        else:
            self._waiting.append(self._skipped(subject, headers, payload))
        self._news.set()

    def _skipped(self, subject: str, headers: Mapping[str, str] | None, payload: bytes) -> Skipped | Refused:
        """The audio goes, its bounds stay: the account must say which samples were given up."""
        try:
            return wire.parse_skipped(subject, headers, payload, self._options)
        except Rejection as rejection:
            return _refused(subject, headers, rejection)


def _refused(subject: str, headers: Mapping[str, str] | None, rejection: Rejection) -> Refused:
    stream = subject.partition(".")[2]
    return Refused(stream if wire.is_stream(stream) else None, wire.session_of(headers), rejection)
