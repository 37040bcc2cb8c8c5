"""Sends requests and waits for their answers, all through one subscription."""

from __future__ import annotations

import asyncio
import contextlib
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
_MORE_SECS = 0.05  # for one that has just started; the others needed milliseconds


class Asking:
    """Asks and gets answers, without the task that nats-py makes of each."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._numbers = itertools.count(1)
        self._waiting: dict[bytes, asyncio.Future[tuple[bytes, bytes]]] = {}
        self._gathering: dict[bytes, _Gathering] = {}

    async def start(self) -> None:
        """Subscribe to the answers. Raises `BrokerError` when the server forbids it."""
        self._connection.client.listen(f"{self._inbox}.*", self._take)
        await self._connection.confirm()

    @property
    def max_payload(self) -> int:
        """Bytes of a message, with its headers, that the server takes."""
        return self._connection.max_payload

    async def ask(self, subject: str, payload: bytes, headers: Mapping[str, str], patience: float) -> bytes:
        """Return the answer's payload.

        Raises `RequestError` with the code of the answer as in P-8, or with one of these:

        - 413: more than the server's max_payload;
        - 503: NATS is away, or nobody listens;
        - 504: no answer within `patience` seconds.
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

    async def ask_all(self, subject: str, patience: float, expected: int = 0) -> list[bytes] | None:
        """Return the payloads of all answers within `patience` seconds; sooner if `expected` ones are there, or any.

        None: the server says that nobody listens. Raises `RequestError` as `ask` does.
        """
        reply = f"{self._inbox}.{next(self._numbers)}"
        gathering = _Gathering(expected)
        self._gathering[reply.encode()] = gathering
        try:
            await self._publish(subject, b"", {}, reply)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await gathering.complete.wait()
        finally:
            del self._gathering[reply.encode()]
        return None if gathering.nobody else gathering.found

    async def _publish(self, subject: str, payload: bytes, headers: Mapping[str, str], reply: str) -> None:
        if not self._connection.up:
            raise RequestError(503, "NATS is away")
        await self._connection.client.publish(subject, payload, reply, headers=dict(headers) or None)

    def _take(self, subject: bytes, block: bytes, payload: bytes) -> None:
        answer = self._waiting.get(subject)
        if answer is not None and not answer.done():
            answer.set_result((block, payload))
        elif (gathering := self._gathering.get(subject)) is not None:
            gathering.add(None if block.startswith(_NO_RESPONDERS) else payload)


class _Gathering:
    """Answers of several to one question. One more than expected may be on its way, so that moment is waited for."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._last = False  # whether only the moment for others is left
        self.nobody = False
        self.found: list[bytes] = []
        self.complete = asyncio.Event()

    def add(self, payload: bytes | None) -> None:
        """Add an answer; None: the server says that there will be none."""
        if payload is None:
            self.nobody = True
            self.complete.set()
            return
        self.found.append(payload)
        if len(self.found) >= self._expected and not self._last:
            self._last = True
            asyncio.get_running_loop().call_later(_MORE_SECS, self.complete.set)
