"""/livez and /readyz over HTTP, answered by the event loop itself: one that hangs fails its probe by not answering.

And documents that others offer, such as /metrics; other paths on the same port belong to a `Site`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from transcriber.domain.errors import CannotStart
from transcriber.http.answers import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_REQUEST_SECS = 5.0  # for a client to say what it wants; a probe needs milliseconds
_LINE_BYTES = 4096
_REQUEST_WORDS = 3  # method, path, version
_METHODS = frozenset({"GET", "HEAD"})
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class HealthOptions:
    """Where to listen; port 0 takes a free one."""

    host: str = "0.0.0.0"  # noqa: S104 - the kubelet probes from outside the pod
    port: int = 8080


class Site(Protocol):
    """What else is to be had on this port, by GET and HEAD, under host names that it does not refuse.

    `serve` may last; `close` ends it at once.
    """

    @property
    def paths(self) -> Collection[str]: ...
    def refusal(self, host: str) -> str | None: ...
    async def serve(
        self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, head: bool
    ) -> None: ...
    def close(self) -> None: ...


class HealthServer:
    """Answers GET and HEAD: 200 when the check finds nothing, 503 with what it found."""

    def __init__(
        self, options: HealthOptions, checks: dict[str, Callable[[], str | None]], site: Site | None = None
    ) -> None:
        """`checks`: path to a function that returns what is wrong, or None."""
        self._options = options
        self._checks = checks
        self._site = site
        self._site_paths = frozenset(site.paths if site is not None else ())
        self._documents: dict[str, tuple[str, Callable[[], str]]] = {}
        self._server: asyncio.Server | None = None
        self.port = options.port

    def offer(self, path: str, content_type: str, write: Callable[[], str]) -> None:
        """Serve a document; `write` is called in a thread of its own for every request."""
        self._documents[path] = content_type, write

    async def start(self) -> None:
        """Listen. Raises `CannotStart` when the port is taken."""
        try:
            self._server = await asyncio.start_server(
                self._answer, self._options.host, self._options.port, limit=_LINE_BYTES
            )
        except (OSError, UnicodeError) as error:  # the latter for a host name that none can be
            where = f"HEALTH_HOST={self._options.host} HEALTH_PORT={self._options.port}"
            raise CannotStart(f"cannot listen on {where}: {getattr(error, 'strerror', None) or error}") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop to listen; open connections are cut."""
        if self._server is not None:
            self._server.close()
        if self._site is not None:
            self._site.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, ValueError):
            async with asyncio.timeout(_REQUEST_SECS):
                words = (await reader.readline()).decode("latin-1").split()
                host = await _read_host(reader) if words else ""
                method, path = (words[0], words[1].partition("?")[0]) if len(words) == _REQUEST_WORDS else ("", "")
                site = self._site if method in _METHODS and path in self._site_paths else None
                refusal = site.refusal(host) if site is not None else None
                if refusal is not None:
                    site = None
                if site is None:
                    writer.write(await self._response(method, path, refusal) if method else _BAD_REQUEST)
                    await writer.drain()
            if site is not None:
                await site.serve(path, reader, writer, head=method == "HEAD")
        writer.close()

    async def _response(self, method: str, path: str, refusal: str | None) -> bytes:
        check, document = self._checks.get(path), self._documents.get(path)
        paths = [*self._checks, *self._documents, *sorted(self._site_paths)]
        if path not in paths:
            return _encode(method, "404 Not Found", {"error": f"no such path; try {' or '.join(paths)}"})
        if method not in _METHODS:
            return _encode(method, "405 Method Not Allowed", {"error": "GET or HEAD"})
        if refusal is not None:
            return _encode(method, "421 Misdirected Request", {"error": refusal})
        if document is not None:
            content_type, write = document
            payload = (await asyncio.to_thread(write)).encode()
            return answer("200 OK", content_type, payload, head=method == "HEAD")
        problem = check() if check is not None else None
        if problem is None:
            return _encode(method, "200 OK", {"status": "ok"})
        return _encode(method, "503 Service Unavailable", {"status": "failing", "reason": problem})


async def _read_host(reader: asyncio.StreamReader) -> str:
    """Take all headers, return what the `Host` header says, without the port; empty without one."""
    host = ""
    while line := (await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "host":
            host = re.sub(r":\d*$", "", value.strip())
    return host


def _encode(method: str, status: str, body: dict[str, str]) -> bytes:
    return answer(status, "application/json", json.dumps(body).encode() + b"\n", head=method == "HEAD")
