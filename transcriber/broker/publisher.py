"""What goes out, in order; while NATS is away it waits."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

import nats.errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from transcriber.broker.connection import Connection
    from transcriber.broker.encoding import Message

log = logging.getLogger(__name__)

_RETRY_SECS = 0.1  # between a failed publish and the next look at the connection


class Publisher:
    """A bounded outbox in front of the connection.

    An entry is a function that makes its messages at the moment of publishing, so that latencies are true and a result
    that waited too long can still become a gap.
    """

    def __init__(self, connection: Connection, limit: int) -> None:
        self._connection = connection
        self._limit = limit
        self._outbox: deque[Callable[[], Iterable[Message]]] = deque()
        self._sending: deque[Message] = deque()  # of the entry that is under way
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.published = 0
        self.refused = 0  # messages that did not fit into the outbox or into max_payload

    @property
    def waiting(self) -> int:
        return len(self._outbox)

    @property
    def connected(self) -> bool:
        return self._connection.connected.is_set()

    def put(self, entry: Callable[[], Iterable[Message]], *, essential: bool = True) -> None:
        """Queue one entry. One that is not essential is refused, and counted, when the outbox is full."""
        if not essential and len(self._outbox) >= self._limit:
            self.refused += 1
            log.error("outbox full: an event is not published", extra={"limit": self._limit})
            return
        self._outbox.append(entry)
        self._empty.clear()
        self._news.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            while not self._outbox:
                self._empty.set()
                self._news.clear()
                await self._news.wait()
            await self._connection.connected.wait()
            self._sending.extend(self._outbox.popleft()())
            while self._sending:
                await self._send(self._sending[0])
                self._sending.popleft()

    async def emptied(self) -> None:
        """Wait until everything queued so far has been handed to NATS."""
        await self._empty.wait()

    def undelivered(self) -> Iterable[Message]:
        """After `run` was cancelled: take out the messages that did not go out, in order."""
        yield from self._sending
        self._sending.clear()
        while self._outbox:
            yield from self._outbox.popleft()()

    async def _send(self, message: Message) -> None:
        # Over the limit the server drops the connection for good, and nats-py does not count headers: we do.
        if message.size > self._connection.max_payload:
            self.refused += 1
            log.error("message too large to publish", extra={"subject": message.subject, "bytes": message.size})
            return
        while True:
            await self._connection.connected.wait()
            try:
                await self._connection.publish(message.subject, message.payload, dict(message.headers))
            except (nats.errors.OutboundBufferLimitError, nats.errors.ConnectionClosedError, OSError) as error:
                log.warning("publish will be tried again: %s", error or type(error).__name__)
                await asyncio.sleep(_RETRY_SECS)
            else:
                self.published += 1
                return
