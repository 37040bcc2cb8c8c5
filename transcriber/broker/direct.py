"""Sends audio and hears results for thousands of streams at once, without waiting and without a task for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transcriber.broker.connection import Connection
    from transcriber.broker.patched_client import Taker

# A quarter of what nats-py lets wait. More than 30 s of 16 kHz s16 mono, so that a stall of milliseconds stops nobody.
_BACKLOG = 512 * 1024


class DirectLine:
    """The connection's short way out and in. `listen` must be allowed by the server: `Connection.check` tells later."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client = connection.client

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
        self._client.put(b"HPUB %b %d %d\r\n%b%b\r\n" % (subject, size, size + len(payload), block, payload))

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
