"""nats-py's client, mended where it goes deaf or answers too early, and opened where it is slow.

Its private methods: hence the pin in pyproject.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio.client import Client

from transcriber.broker import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nats.aio.subscription import Subscription

    Taker = Callable[[str, Mapping[str, str] | None, bytes], None]

_PING = b"PING\r\n"


class MendedClient(Client):
    """nats-py, whose read loop ends for good, and in silence, at the first exception in it.

    Anybody can cause one: the server checks neither that a subject is UTF-8 nor what a header block holds. So does a
    PONG for which nobody waits any more.
    """

    def __init__(self) -> None:
        super().__init__()
        self._takers: dict[int, Taker] = {}

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
            take(subject.decode("utf-8", "replace"), wire.fields(headers) if headers else None, data)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except Exception:  # noqa: BLE001 - whatever it is, it is the sender's doing and must reach only this message
            return {wire.UNREADABLE: ""}

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Any:  # noqa: ANN401
        return super()._build_message(sid, _decodable(subject), _decodable(reply), data, headers)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """Queue the PING behind what is queued already; nats-py writes it past that, so its answer confirms nothing."""
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


async def _never(_message: object) -> None:
    """What nats-py calls for a subscription whose messages never reach it."""


def _decodable(subject: bytes) -> bytes:
    return bytes(subject).decode("utf-8", "replace").encode()
