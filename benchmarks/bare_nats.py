"""A connection to NATS for stand-ins: the protocol written out, so that they cost less than what they measure."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Take = Callable[[bytes, bytes, bytes], None]  # subject, where to answer or nothing, payload without headers

_HELLO = b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n'
_END = b"\r\n"


class BareNats(asyncio.Protocol):
    """Subscribes, and passes each message on. It trusts the server, and knows no passwords and no TLS."""

    def __init__(self, takes: Iterable[tuple[str, Take]]) -> None:
        """`takes`: by subject."""
        self._takes = dict(enumerate(takes, 1))
        self._rest = b""
        self.ready = asyncio.get_running_loop().create_future()  # once the server has all subscriptions
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        lines = b"".join(b"SUB %b %d\r\n" % (take[0].encode(), sid) for sid, take in self._takes.items())
        self._transport.write(_HELLO + lines + b"PING\r\n")

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost.set_result(None)

    def publish(self, subject: bytes, payload: bytes) -> None:
        """Send a message."""
        self._transport.write(b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload))

    def data_received(self, data: bytes) -> None:
        data, place = self._rest + data, 0
        while (end := data.find(_END, place)) >= 0:
            kind, *words = data[place:end].split(b" ", 5)
            begin = end + len(_END)
            if kind in {b"MSG", b"HMSG"}:
                size = int(words[-1])
                if begin + size + len(_END) > len(data):
                    break
                self._pass_on(kind, words, data[begin : begin + size])
                begin += size + len(_END)
            elif kind == b"PING":
                self._transport.write(b"PONG\r\n")
            elif kind == b"PONG":
                self.ready.set_result(None)
            place = begin
        self._rest = data[place:]

    def _pass_on(self, kind: bytes, words: list[bytes], payload: bytes) -> None:
        headed = kind == b"HMSG"
        subject, sid, *more = words
        reply = more[0] if len(more) > 1 + headed else b""
        self._takes[int(sid)][1](subject, reply, payload[int(more[-2]) :] if headed else payload)


async def connect(url: str, takes: Iterable[tuple[str, Take]]) -> BareNats:
    """Connect to `nats://host:port`, and wait for the subscriptions."""
    place, loop = urlsplit(url), asyncio.get_running_loop()
    _, nats = await loop.create_connection(lambda: BareNats(takes), place.hostname or "", place.port or 4222)
    await nats.ready
    return nats
