"""Sends requests and waits for their answers, all through one subscription."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from typing import TYPE_CHECKING

from transcriber.broker.direct import header_block
from transcriber.domain.errors import RequestError
from transcriber.protocol import headers as names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transcriber.broker.connection import Connection

_CODE, _DETAIL = "Nats-Service-Error-Code", "Nats-Service-Error"  # as the services API names them
_NO_RESPONDERS = b"NATS/1.0 503"  # how the server says that nobody listens to a subject
_MORE_SECS = 0.05  # for one that has just started; the others needed milliseconds
_LOOK_SECS = 0.1  # between two looks at who has waited too long: a hundredth of the shortest patience for a recording


class Asking:
    """Asks and gets answers, without the task that nats-py makes of each, and with one timer for all of them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._numbers = itertools.count(1)
        self._waiting: dict[bytes, tuple[asyncio.Future[tuple[bytes, bytes]], float]] = {}  # with the time to give up
        self._looking: asyncio.TimerHandle | None = None
        self._gathering: dict[bytes, _Gathering] = {}

    async def start(self) -> None:
        """Subscribe to the answers. Raises `BrokerError` when the server forbids it."""
        self._connection.client.listen(f"{self._inbox}.*", self._take)
        await self._connection.confirm()

    @property
    def max_payload(self) -> int:
        """Bytes of a message, with its headers, that the server takes."""
        return self._connection.max_payload

    @property
    def waiting(self) -> int:
        """Requests that wait for their answers."""
        return len(self._waiting)

    async def ask(self, subject: str, payload: bytes, headers: Mapping[str, str], patience: float) -> bytes:
        """Return the answer's payload. Headers must be lines that NATS can carry: nothing here changes them.

        Raises `RequestError` with the code of the answer as in P-8, or with one of these:

        - 413: more than the server's max_payload;
        - 503: NATS is away, or nobody listens;
        - 504: no answer within `patience` seconds.
        """
        block = header_block(headers) + b"\r\n" if headers else b""
        size, most = len(payload) + len(block), self._connection.max_payload
        if size > most:
            raise RequestError(413, f"a request of {size} bytes; the server's max_payload is {most}")
        self._check()
        loop = self._loop
        key = f"{self._inbox}.{next(self._numbers)}".encode()
        answer: asyncio.Future[tuple[bytes, bytes]] = loop.create_future()
        self._waiting[key] = answer, loop.time() + patience
        if self._looking is None:
            self._looking = loop.call_later(_LOOK_SECS, self._look)
        try:
            self._connection.client.ask(subject.encode(), key, block, payload)
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
        self._check()
        key = f"{self._inbox}.{next(self._numbers)}".encode()
        gathering = _Gathering(expected)
        self._gathering[key] = gathering
        try:
            self._connection.client.ask(subject.encode(), key, b"", b"")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await gathering.complete.wait()
        finally:
            del self._gathering[key]
        return None if gathering.nobody else gathering.found

    def _check(self) -> None:
        if not self._connection.up:
            raise RequestError(503, "NATS is away")

    def _look(self) -> None:
        """Give up what has waited for too long."""
        now = self._loop.time()
        for answer, due in self._waiting.values():
            if due <= now and not answer.done():
                answer.set_exception(TimeoutError())
        self._looking = self._loop.call_later(_LOOK_SECS, self._look) if self._waiting else None

    def _take(self, subject: bytes, block: bytes, payload: bytes) -> None:
        found = self._waiting.get(subject)
        if found is not None:
            if not found[0].done():
                found[0].set_result((block, payload))
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
