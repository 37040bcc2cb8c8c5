"""nats-py's client, mended where it goes deaf or answers too early, and opened where it is slow.

Its private methods: hence the pin in pyproject.
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
# For so long the socket may gather what comes: where messages come faster than that, waking up for each of them costs
# more than reading it. A tenth of the 50 ms that a final may take besides its pause and its decoding.
_GATHER_SECS = 0.005


class MendedClient(Client):
    """nats-py, whose read loop ends for good, and in silence, at the first exception in it.

    Anybody can cause one: the server checks neither that a subject is UTF-8 nor what a header block holds. So does a
    PONG for which nobody waits any more.
    """

    def __init__(self) -> None:
        super().__init__()
        self._takers: dict[int, Taker] = {}
        self._taken = False  # whether something went to a taker since the last look
        self._last_taken = 0.0  # when reading went on after that
        self._ps = _GatheringParser(self)

    async def hand_over(self, subject: str, take: Taker) -> Subscription:
        """Subscribe; every message goes to `take`, which must neither wait nor raise, straight from the read loop.

        nats-py would make an object of each, queue it and wake a task, which is an eighth of all that a live stream in
        chunks of 20 ms costs; and what its queue does not hold it drops, without a word about which audio that was.
        """
        self._takers[self._sid + 1] = take  # before the first message can come
        return await self.subscribe(subject, cb=_never)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        take = self._takers.get(sid)
        if take is None or sid not in self._subs:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            self._taken = True
            take(bytes(subject), headers or b"", data)

    async def gather(self) -> None:
        """Let audio gather in the socket if it comes in quick succession."""
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
        except Exception:  # noqa: BLE001 - whatever it is, it is the sender's doing and must reach only this message
            return {incoming.UNREADABLE: ""}

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Any:  # noqa: ANN401
        return super()._build_message(sid, _decodable(subject), _decodable(reply), data, headers)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """Queue the PING after what is queued already; nats-py writes it past that, so its answer confirms nothing."""
        self._pongs.append(asyncio.get_running_loop().create_future() if future is None else future)
        await self._send_command(_PING)
        await self._flush_pending()

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _read_loop(self) -> None:
        await super()._read_loop()
        if self.is_connected:  # it has ended although nobody asked for it: better a new connection than a deaf one
            await self._process_op_err(nats.errors.ProtocolError())


class _GatheringParser(Parser):
    """nats-py's, which reads what has come and then lets more gather."""

    async def parse(self, data: bytes = b"") -> None:
        await super().parse(data)
        if len(data) < DEFAULT_BUFFER_SIZE:  # else there is more already
            await self.nc.gather()


async def _never(_message: object) -> None:
    """What nats-py calls for a subscription whose messages never reach it."""


def _decodable(subject: bytes) -> bytes:
    return bytes(subject).decode("utf-8", "replace").encode()
