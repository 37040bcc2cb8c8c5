"""nats-py's client, with three bugs fixed and a fast path for audio.

It overrides private methods, so pyproject.toml pins nats-py's version.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from transcriber.protocol import incoming

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.subscription import Subscription

    Taker = Callable[[bytes, bytes, bytes], None]  # subject, header block or nothing, payload

_PING = b"PING\r\n"
# For so long the socket may collect data. When messages come faster, waking up for each one costs more than reading it.
# It is a tenth of the 50 ms that a final may take besides its pause and its decoding.
_GATHER_SECS = 0.005


class MendedClient(Client):
    """nats-py's client without a fatal bug: its read loop ends for good, and silently, at the first exception in it.

    Any publisher can cause one, because the server checks neither that a subject is UTF-8 nor the content of headers.
    A PONG that nobody waits for any more causes one too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._takers: dict[int, Taker] = {}
        self._taken = False  # whether a taker got a message since the last `gather`
        self._last_taken = 0.0  # when reading went on after the last `gather`
        self._ps = _GatheringParser(self)

    async def hand_over(self, subject: str, take: Taker) -> Subscription:
        """Subscribe; the read loop passes every message directly to `take`, which must neither wait nor raise.

        nats-py would make an object of each message, queue it and wake a task. That is an eighth of the whole cost of a
        live stream in chunks of 20 ms. And when its queue is full, it drops messages without saying which audio.
        """
        self._takers[self._sid + 1] = take  # before the first message can arrive
        return await self.subscribe(subject, cb=_never)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        take = self._takers.get(sid)
        if take is None or sid not in self._subs:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            self._taken = True
            take(bytes(subject), headers or b"", data)

    async def gather(self) -> None:
        """Let audio collect in the socket if it comes in quick succession."""
        if not self._taken:
            return
        self._taken = False
        loop, transport = asyncio.get_running_loop(), self._transport
        if loop.time() - self._last_taken < _GATHER_SECS and isinstance(transport, TcpTransport):
            socket: Any = transport._io_writer.transport  # type: ignore[union-attr] # noqa: SLF001 - connected
            socket.pause_reading()
            try:
                await asyncio.sleep(_GATHER_SECS)
            finally:
                socket.resume_reading()
        self._last_taken = loop.time()

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except Exception:  # noqa: BLE001 - any error is the sender's fault and must affect only this message
            return {incoming.UNREADABLE: ""}

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Any:  # noqa: ANN401
        return super()._build_message(sid, _decodable(subject), _decodable(reply), data, headers)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """Send the PING after what is queued already. nats-py sends it first, so the PONG would confirm nothing."""
        self._pongs.append(asyncio.get_running_loop().create_future() if future is None else future)
        await self._send_command(_PING)
        await self._flush_pending()

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _read_loop(self) -> None:
        await super()._read_loop()
        if self.is_connected:  # it ended unasked: make a new connection, as this one receives nothing
            await self._process_op_err(nats.errors.ProtocolError())


class _GatheringParser(Parser):
    """nats-py's parser, which parses what has arrived and then lets more data collect."""

    async def parse(self, data: bytes = b"") -> None:
        await super().parse(data)
        if len(data) < DEFAULT_BUFFER_SIZE:  # otherwise more data is waiting already
            await self.nc.gather()


async def _never(_message: object) -> None:
    """A callback for nats-py that is never called: the messages go to a taker."""


def _decodable(subject: bytes) -> bytes:
    return bytes(subject).decode("utf-8", "replace").encode()
