"""nats-py's client, mended where it goes deaf or answers too early. Its private methods: hence the pin in pyproject."""

from __future__ import annotations

import asyncio
from typing import Any

import nats.errors
from nats.aio.client import Client

from transcriber.broker.wire import UNREADABLE

_PING = b"PING\r\n"


class MendedClient(Client):
    """nats-py, whose read loop ends for good, and in silence, at the first exception in it.

    Anybody can cause one: the server checks neither that a subject is UTF-8 nor what a header block holds. So does a
    PONG for which nobody waits any more.
    """

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except Exception:  # noqa: BLE001 - whatever it is, it is the sender's doing and must reach only this message
            return {UNREADABLE: ""}

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


def _decodable(subject: bytes) -> bytes:
    return bytes(subject).decode("utf-8", "replace").encode()
