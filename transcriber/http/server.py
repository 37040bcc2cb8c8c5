"""Serves /livez and /readyz over HTTP, documents such as /metrics, and the paths of a `Site`.

The event loop itself answers, so a loop that hangs fails its probe.
"""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from aiohttp import web

from transcriber.http.acceptor import Acceptor, HealthOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp.typedefs import Handler

ACCEPTOR = web.AppKey("ACCEPTOR", Acceptor)
_CLOSE_SECS = 0.5  # at shutdown, to finish answers that have begun
_SETTINGS: dict[str, Any] = {"access_log": None}


class Site(Protocol):
    """More paths on this port, for GET and HEAD. `refusal` says what is wrong with a host name, or returns None."""

    @property
    def handlers(self) -> Mapping[str, Handler]: ...
    def refusal(self, host: str) -> str | None: ...
    def close(self) -> None: ...


class HealthServer:
    """Answers GET and HEAD: 200 when a check finds no problem, otherwise 503 with the problem."""

    def __init__(
        self, options: HealthOptions, checks: dict[str, Callable[[], str | None]], site: Site | None = None
    ) -> None:
        """`checks` maps a path to a function that returns the problem, or None."""
        self._handlers: dict[str, Handler] = {path: partial(_probe, check) for path, check in checks.items()}
        self._site = site
        self._acceptor = Acceptor(options)
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port it listens on, once it is started."""
        return self._acceptor.port

    def offer(self, path: str, content_type: str, write: Callable[[], str]) -> None:
        """Serve a document; call this before `start`. `write` runs in a thread of its own for every request."""
        self._handlers[path] = partial(_document, content_type, write)

    async def start(self) -> None:
        """Listen. Raises `CannotStart` when the port is taken."""
        self._handlers |= self._site.handlers if self._site is not None else {}
        app = web.Application(middlewares=[self._explain, self._check_host])
        app[ACCEPTOR] = self._acceptor
        app.add_routes([web.get(path, handler) for path, handler in self._handlers.items()])
        app.on_response_prepare.append(_add_headers)
        app.on_shutdown.append(self._close_site)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=_CLOSE_SECS)
        await self._runner.setup()
        await self._acceptor.start(partial(_Connection, cast("web.Server", self._runner.server), self._acceptor))

    async def stop(self) -> None:
        """Stop listening. Answers that have begun get a moment, then every connection is cut."""
        await self._acceptor.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        self._acceptor.cut()

    async def _close_site(self, _app: web.Application) -> None:
        if self._site is not None:
            self._site.close()

    @web.middleware
    async def _explain(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Explain in JSON what is wrong with a request."""
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return _json(404, error=f"no such path; try {' or '.join(self._handlers)}")
        except web.HTTPMethodNotAllowed as refused:
            response = _json(405, error="GET or HEAD")
            response.headers["Allow"] = refused.headers["Allow"]
            return response

    @web.middleware
    async def _check_host(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse the site's paths under a host name that it refuses. `request.host` is not used: it may ask DNS."""
        if self._site is not None and request.path in self._site.handlers:
            host = re.sub(r":\d*$", "", request.headers.get("Host", "").strip())
            if (refusal := self._site.refusal(host)) is not None:
                return _json(421, error=refusal)
        return await handler(request)


class _Connection(web.RequestHandler):
    """One connection, reported to the acceptor. Input that is not HTTP gets an empty 400 and no line in the log."""

    __slots__ = ("_accepted", "_acceptor")

    def __init__(self, server: web.Server, acceptor: Acceptor) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **_SETTINGS)
        self._acceptor = acceptor

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._accepted = cast("asyncio.Transport", transport)
        self._acceptor.opened(self._accepted)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._acceptor.closed(self._accepted)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:  # noqa: PLR2004 - a defect of ours
            return super().handle_error(request, status, exc, message)
        response = web.Response(status=status, headers={"Server": "transcriber"})  # otherwise aiohttp shows its version
        response.force_close()
        return response


async def _probe(check: Callable[[], str | None], _request: web.Request) -> web.Response:
    problem = check()
    return _json(200, status="ok") if problem is None else _json(503, status="failing", reason=problem)


async def _document(content_type: str, write: Callable[[], str], _request: web.Request) -> web.Response:
    payload = (await asyncio.to_thread(write)).encode()
    return web.Response(body=payload, headers={"Content-Type": content_type})


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Allow one answer per connection: a probe opens a new one anyway, and an idle one would hold a descriptor."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["Connection"] = "close"
    response.force_close()
    del response.headers["Server"]


def _json(code: int, **body: str) -> web.Response:
    payload = json.dumps(body).encode() + b"\n"
    return web.Response(status=code, body=payload, content_type="application/json")
