"""Sends audio and hears results for thousands of streams at once, without waiting and without a task for each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transcriber.broker.connection import Connection
    from transcriber.broker.patched_client import Taker

# What nats-py lets wait: what 2,000 streams of 16 kHz s16 mono send in 30 ms, so that a shorter stall stops nobody.
_BACKLOG = 2 * 1024 * 1024
_LOOK_SECS = 0.005  # between two looks whether there is room again: no client may be held up for longer than that


class Waiter(Protocol):
    """Holds messages until they may go out."""

    def go_on(self) -> None: ...


class DirectLine:
    """The connection's short way out and in. `listen` must be allowed by the server: `Connection.check` tells later."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client = connection.client
        self._waiters: dict[Waiter, None] = {}  # in their order, each once
        self._looking: asyncio.TimerHandle | None = None

    @property
    def up(self) -> bool:
        """Whether NATS is there."""
        return self._connection.up

    @property
    def open(self) -> bool:
        """Whether a message goes out at once: NATS is there and takes what it gets."""
        return self._connection.up and self._client.backlog < _BACKLOG

    @property
    def max_payload(self) -> int:
        """The most bytes of headers and payload in one message."""
        return self._connection.max_payload

    def send(self, subject: bytes, block: bytes, payload: bytes) -> None:
        """Publish with a whole header block, as `header_block` begins one. While NATS is away, nothing may be sent."""
        size = len(block)
        self._client.collect(b"HPUB %b %d %d\r\n%b%b\r\n" % (subject, size, size + len(payload), block, payload))

    def wait(self, waiter: Waiter) -> None:
        """Call its `go_on` once the line is open, those that wait for longer first."""
        self._waiters[waiter] = None
        self._look_soon()

    def _look_soon(self) -> None:
        if self._waiters and self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(_LOOK_SECS, self._look)

    def _look(self) -> None:
        for waiter in list(self._waiters) if self.open else ():
            if not self.open:
                break
            del self._waiters[waiter]
            waiter.go_on()
        self._looking = None
        self._look_soon()

    def listen(self, subject: str, take: Taker) -> int:
        """Pass every message of a subject to `take`, which must neither wait nor raise. Returns a number."""
        return self._client.listen(subject, take)

    def ignore(self, number: int) -> None:
        """End what `listen` began."""
        self._client.ignore(number)


def header_block(headers: Mapping[str, str]) -> bytes:
    """Encode a header block without its end: more lines may follow, and an empty one must."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"NATS/1.0\r\n{lines}".encode()
