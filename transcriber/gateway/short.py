"""Answers short requests itself, at a fraction of what aiohttp needs for them. Everything else goes to aiohttp.

A request is short when all of it has come at once, in a form that no two servers read differently. As soon as a
connection sends anything else, aiohttp has it for good.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Protocol, cast

from aiohttp import web

from transcriber.gateway.answer import JsonAnswer, whole_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH = "/transcribe"  # whose handler needs nothing of a request but its headers and its body
_BEGIN = f"POST {PATH} HTTP/1.1\r\n".encode()
_END = b"\r\n\r\n"
# Lines as in RFC 9112, section 5, without anything that it merely tolerates.
_LINES = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)+")
_LENGTH = re.compile(r"[0-9]{1,7}")
_LONGEST_HEAD = 8190  # bytes: what aiohttp takes for one line
# They change how a request is read, or when its answer comes.
_UNUSUAL = frozenset({"transfer-encoding", "content-encoding", "expect", "upgrade", "connection", "trailer"})
_WAITING_BYTES = 256 * 1024  # of the next requests, while one is answered


class ShortRequest:
    """What a handler needs of a request, by the names that aiohttp has for it."""

    __slots__ = ("_body", "_transport", "content_length", "headers")
    method = "POST"
    path = PATH
    version = (1, 1)
    keep_alive = True

    def __init__(self, transport: asyncio.Transport, headers: Mapping[str, str], body: bytes) -> None:
        self._transport = transport
        self._body = body
        self.headers = headers  # names in lower case
        self.content_length = len(body)

    @property
    def content(self) -> ShortRequest:
        """The body, which is there."""
        return self

    def is_eof(self) -> bool:
        """Whether all of the body has come."""
        return True

    def read_nowait(self) -> bytes:
        """Take the body."""
        body, self._body = self._body, b""
        return body

    @property
    def writer(self) -> ShortRequest:
        """The way to the client."""
        return self

    async def write_eof(self, data: bytes) -> None:
        """Write a whole answer. Raises `ConnectionResetError` when the client is gone."""
        if self._transport.is_closing():
            raise ConnectionResetError
        self._transport.write(data)


def read_short(data: bytes, transport: asyncio.Transport) -> ShortRequest | None:
    """Read a request if it is short, and all that there is; else None."""
    if not data.startswith(_BEGIN):
        return None
    end = data.find(_END, len(_BEGIN) - 2)
    if not 0 < end <= _LONGEST_HEAD or _LINES.fullmatch(data, len(_BEGIN), end + 2) is None:
        return None
    lines = data[len(_BEGIN) : end].decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip(" \t")
    if len(headers) != len(lines) or not headers.keys().isdisjoint(_UNUSUAL) or "host" not in headers:
        return None
    length = headers.get("content-length", "")
    body = end + len(_END)
    if _LENGTH.fullmatch(length) is None or int(length) != len(data) - body:
        return None
    return ShortRequest(transport, headers, data[body:])


class Handler(Protocol):
    """Answers requests, and has aiohttp's way to serve a connection."""

    shorts: set[ShortConnection]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse: ...
    def full_protocol(self) -> asyncio.Protocol: ...


class ShortConnection(asyncio.Protocol):
    """A connection of which every request so far was short. It is closed after `idle` seconds without one."""

    def __init__(self, handler: Handler, idle: float) -> None:
        self._handler = handler
        self._idle_secs = idle
        self._waiting = b""  # what came while a request was answered
        self._leaving = False
        self.answering: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._handler.shorts.add(self)
        self._idle_since = self._loop.time()
        self._idling = self._loop.call_later(self._idle_secs, self._look)

    def connection_lost(self, _error: Exception | None) -> None:
        self._gone()
        if self.answering is not None:
            self.answering.cancel()

    def data_received(self, data: bytes) -> None:
        if self.answering is not None:
            self._waiting += data
            if len(self._waiting) > _WAITING_BYTES:
                self._transport.pause_reading()
        elif (request := read_short(data, self._transport)) is not None:
            self.answering = self._loop.create_task(self._answer(request))
        else:
            self._hand_over(data)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def leave(self) -> None:
        """Take no further request; close once the present one is answered."""
        self._leaving = True
        if self.answering is None:
            self._transport.close()

    def _look(self) -> None:
        """Close the connection if it has been idle for long enough."""
        left = self._idle_since + self._idle_secs - self._loop.time()
        if self.answering is None and left <= 0:
            self._transport.close()
        else:
            self._idling = self._loop.call_later(max(1.0, left), self._look)

    async def _answer(self, request: ShortRequest) -> None:
        keep = False
        try:
            response = await self._handler.handle(cast("web.BaseRequest", request))
            if self._leaving:
                response.force_close()
            if isinstance(response, JsonAnswer):
                await response.prepare(cast("web.BaseRequest", request))
                keep = bool(response.keep_alive)
            elif isinstance(response, web.Response):
                keep = response.keep_alive is not False
                await request.write_eof(whole_answer(response, cast("bytes", response.body), keep=keep))
        except ConnectionError:
            keep = False
        finally:
            self.answering = None
            self._idle_since = self._loop.time()
            if not keep:
                self._transport.close()
        if keep and not self._transport.is_closing():
            self._next()

    def _next(self) -> None:
        data, self._waiting = self._waiting, b""
        if data:
            self._transport.resume_reading()
            self.data_received(data)

    def _hand_over(self, data: bytes) -> None:
        """Give the connection to aiohttp, with what has come."""
        self._gone()
        protocol = self._handler.full_protocol()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)

    def _gone(self) -> None:
        self._idling.cancel()
        self._handler.shorts.discard(self)
