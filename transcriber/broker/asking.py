"""Sends requests and waits for their answers, all through one subscription."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from typing import TYPE_CHECKING

from transcriber.domain.errors import RequestError
from transcriber.protocol import headers as names
from transcriber.protocol.outgoing import header_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transcriber.broker.connection import Connection

_CODE, _DETAIL = "Nats-Service-Error-Code", "Nats-Service-Error"  # as the services API names them
_NO_RESPONDERS = b"NATS/1.0 503"  # how the server says that nobody listens to a subject


class Asking:
    """Asks and gets answers. nats-py makes a task of each answer; here the read loop hands it to who waits for it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._numbers = itertools.count(1)
        self._waiting: dict[bytes, asyncio.Future[tuple[bytes, bytes]]] = {}
        self._gathering: dict[bytes, list[bytes]] = {}

    async def start(self) -> None:
        """Subscribe to the answers. Raises `BrokerError` when the server forbids it."""
        await self._connection.hand_over(f"{self._inbox}.*", self._take)

    async def ask(self, subject: str, payload: bytes, headers: Mapping[str, str], patience: float) -> bytes:
        """Return the answer's payload.

        Raises `RequestError`: the code of the answer as in P-8, 413 for more than the server's max_payload, 503 when
        NATS is away or nobody listens, and 504 when no answer comes within `patience` seconds.
        """
        size, most = len(payload) + (header_bytes(headers) if headers else 0), self._connection.max_payload
        if size > most:
            raise RequestError(413, f"a request of {size} bytes; the server's max_payload is {most}")
        reply = f"{self._inbox}.{next(self._numbers)}"
        answer: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        key = reply.encode()
        self._waiting[key] = answer
        try:
            await self._publish(subject, payload, headers, reply)
            async with asyncio.timeout(patience):
                block, body = await answer
        except TimeoutError:
            raise RequestError(504, f"no answer to {subject} within {patience:g} s") from None
        finally:
            del self._waiting[key]
        if not block:
            return body
        if block.startswith(_NO_RESPONDERS):
            raise RequestError(503, f"nobody answers {subject}: no worker is there")
        fields = names.fields(block)
        if (code := fields.get(_CODE)) is not None:
            raise RequestError(int(code) if code.isdigit() else 500, fields.get(_DETAIL, ""))
        return body

    async def ask_all(self, subject: str, patience: float) -> list[bytes]:
        """Return the payload of every answer that comes within `patience` seconds. Raises `RequestError` as `ask`."""
        reply = f"{self._inbox}.{next(self._numbers)}"
        found: list[bytes] = []
        self._gathering[reply.encode()] = found
        try:
            await self._publish(subject, b"", {}, reply)
            await asyncio.sleep(patience)
        finally:
            del self._gathering[reply.encode()]
        return found

    async def _publish(self, subject: str, payload: bytes, headers: Mapping[str, str], reply: str) -> None:
        if not self._connection.up:
            raise RequestError(503, "NATS is away")
        await self._connection.client.publish(subject, payload, reply, headers=dict(headers) or None)

    def _take(self, subject: bytes, block: bytes, payload: bytes) -> None:
        answer = self._waiting.get(subject)
        if answer is not None and not answer.done():
            answer.set_result((block, payload))
        elif (gathered := self._gathering.get(subject)) is not None and not block.startswith(_NO_RESPONDERS):
            gathered.append(payload)
