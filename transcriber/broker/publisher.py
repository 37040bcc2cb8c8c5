"""Publishes messages in order. While NATS is away, they wait."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

import nats.errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from transcriber.broker.connection import Connection
    from transcriber.protocol.outgoing import Message

log = logging.getLogger(__name__)

_RETRY_SECS = 0.1  # between a failed publish and the next attempt
_UNDER_WAY = 256  # messages, and
_UNDER_WAY_BYTES = 1024 * 1024  # bytes that may be sent and unconfirmed: half of what nats-py accepts before it blocks
_STALLED_SECS = 1.0  # a working server confirms within milliseconds


class Publisher:
    """A bounded outbox for the connection.

    An entry is a function that makes its messages at the moment of publishing. So latencies are true, and a result that
    waited too long can still become a gap. A message counts as delivered when the server has confirmed it. One that was
    sent but not confirmed when the connection broke may or may not have arrived; it is logged.
    """

    def __init__(self, connection: Connection, limit: int) -> None:
        self._connection = connection
        self._limit = limit
        self._outbox: deque[Callable[[], Iterable[Message]]] = deque()
        self._sending: deque[Message] = deque()  # the messages of the current entry
        self._unconfirmed: list[Message] = []
        self._unconfirmed_bytes = 0
        self._confirming_since: float | None = None
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.allowed: Callable[[], bool] = lambda: True  # whether we may publish now, in a fleet
        self.published = 0
        self.refused = 0  # messages that were too many for the outbox or too large for max_payload

    @property
    def waiting(self) -> int:
        return len(self._outbox)

    @property
    def connected(self) -> bool:
        """Whether an entry that is put now is published now."""
        since = self._confirming_since
        return self._connection.connected.is_set() and (since is None or time.monotonic() - since < _STALLED_SECS)

    def put(self, entry: Callable[[], Iterable[Message]], *, essential: bool = True) -> None:
        """Queue one entry. When the outbox is full, an entry that is not essential is dropped and counted."""
        if not essential and len(self._outbox) >= self._limit:
            self.refused += 1
            log.error("outbox full: an event is not published", extra={"outbox": self._limit, "limited": True})
            return
        self._outbox.append(entry)
        self._empty.clear()
        self._news.set()

    def put_ready(self, messages: list[Message], *, essential: bool = True) -> None:
        """Queue messages that do not depend on the moment of publishing."""
        self.put(lambda: messages, essential=essential)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            while not self._outbox:
                if self._unconfirmed:
                    await self._confirm()
                    continue
                self._empty.set()
                self._news.clear()
                await self._news.wait()
            await self._connection.connected.wait()
            if not self.allowed():
                await asyncio.sleep(_RETRY_SECS)
                continue
            self._sending.extend(self._outbox.popleft()())
            while self._sending:
                await self._send(self._sending[0])
                self._sending.popleft()
            if len(self._unconfirmed) >= _UNDER_WAY or self._unconfirmed_bytes >= _UNDER_WAY_BYTES:
                await self._confirm()

    async def emptied(self) -> None:
        """Wait until NATS has confirmed everything queued so far."""
        await self._empty.wait()

    def undelivered(self) -> Iterable[Message]:
        """Take out the messages that were not sent or not confirmed, in order. Call this after `run` was cancelled."""
        yield from self._unconfirmed
        self._unconfirmed = []
        yield from self._sending
        self._sending.clear()
        while self._outbox:
            yield from self._outbox.popleft()()

    async def _confirm(self) -> None:
        """Wait until the server has confirmed what was sent. If the connection breaks, log what may be lost.

        Those messages are not sent again: that could be long after L_max, and they could arrive twice.
        """
        self._confirming_since = time.monotonic()
        confirmed = await self._connection.flushed()
        self._confirming_since = None
        self.published += len(self._unconfirmed) if confirmed else 0
        for message in () if confirmed else self._unconfirmed:
            extra = {"subject": message.subject, "body": message.payload.decode()}
            log.error("perhaps not published: NATS went away before it confirmed", extra=extra)
        self._unconfirmed = []
        self._unconfirmed_bytes = 0

    async def _send(self, message: Message) -> None:
        # A message that is too large makes the server close the connection for good. nats-py does not count headers.
        if message.size > self._connection.max_payload:
            self.refused += 1
            extra = {"subject": message.subject, "bytes": message.size, "limited": True}
            log.error("message too large to publish", extra=extra)
            return
        while True:
            await self._connection.connected.wait()
            try:
                if self._connection.up and self.allowed():
                    await self._connection.publish(message.subject, message.payload, dict(message.headers))
                    break
            except (nats.errors.OutboundBufferLimitError, nats.errors.ConnectionClosedError, OSError) as error:
                log.warning("publish will be tried again: %s", str(error) or type(error).__name__)
            await asyncio.sleep(_RETRY_SECS)
        self._unconfirmed.append(message)
        self._unconfirmed_bytes += message.size
