"""/livez and /readyz over HTTP, answered by the event loop itself: one that hangs fails its probe by not answering.

And documents that others offer, such as /metrics; other paths on the same port belong to a `Site`.
"""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from aiohttp import web

from transcriber.http.listener import HealthOptions, Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp.typedefs import Handler

LISTENER = web.AppKey("LISTENER", Listener)
_CLOSE_SECS = 0.5  # at shutdown, for answers that are under way
_SETTINGS: dict[str, Any] = {"access_log": None}


class Site(Protocol):
    """What else is to be had on this port, by GET and HEAD, under host names that it does not refuse."""

    @property
    def handlers(self) -> Mapping[str, Handler]: ...
    def refusal(self, host: str) -> str | None: ...
    def close(self) -> None: ...


class HealthServer:
    """Answers GET and HEAD: 200 when the check finds nothing, 503 with what it found."""

    def __init__(
        self, options: HealthOptions, checks: dict[str, Callable[[], str | None]], site: Site | None = None
    ) -> None:
        """`checks`: path to a function that returns what is wrong, or None."""
        self._handlers: dict[str, Handler] = {path: partial(_probe, check) for path, check in checks.items()}
        self._site = site
        self._listener = Listener(options)
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """Where it listens, once it is started."""
        return self._listener.port

    def offer(self, path: str, content_type: str, write: Callable[[], str]) -> None:
        """Serve a document, before the start; `write` is called in a thread of its own for every request."""
        self._handlers[path] = partial(_document, content_type, write)

    async def start(self) -> None:
        """Listen. Raises `CannotStart` when the port is taken."""
        self._handlers |= self._site.handlers if self._site is not None else {}
        app = web.Application(middlewares=[self._explain, self._check_host])
        app[LISTENER] = self._listener
        app.add_routes([web.get(path, handler) for path, handler in self._handlers.items()])
        app.on_response_prepare.append(_add_headers)
        app.on_shutdown.append(self._close_site)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=_CLOSE_SECS)
        await self._runner.setup()
        await self._listener.start(partial(_Connection, cast("web.Server", self._runner.server), self._listener))

    async def stop(self) -> None:
        """Stop to listen. Answers under way get a moment, then every connection is cut."""
        await self._listener.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        self._listener.cut()

    async def _close_site(self, _app: web.Application) -> None:
        if self._site is not None:
            self._site.close()

    @web.middleware
    async def _explain(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Say in JSON what is wrong with a request."""
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return _say(404, error=f"no such path; try {' or '.join(self._handlers)}")
        except web.HTTPMethodNotAllowed as refused:
            response = _say(405, error="GET or HEAD")
            response.headers["Allow"] = refused.headers["Allow"]
            return response

    @web.middleware
    async def _check_host(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse the site's paths under a name that the site refuses. Not `request.host`: it may ask DNS."""
        if self._site is not None and request.path in self._site.handlers:
            host = re.sub(r":\d*$", "", request.headers.get("Host", "").strip())
            if (refusal := self._site.refusal(host)) is not None:
                return _say(421, error=refusal)
        return await handler(request)


class _Connection(web.RequestHandler):
    """One connection, of which the listener is told; what is not HTTP gets an empty 400, and no line in the log."""

    __slots__ = ("_listener", "_told")

    def __init__(self, server: web.Server, listener: Listener) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **_SETTINGS)
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._told = cast("asyncio.Transport", transport)
        self._listener.opened(self._told)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._listener.closed(self._told)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:  # noqa: PLR2004 - a defect of ours
            return super().handle_error(request, status, exc, message)
        response = web.Response(status=status, headers={"Server": "transcriber"})  # aiohttp gives its version otherwise
        response.force_close()
        return response


async def _probe(check: Callable[[], str | None], _request: web.Request) -> web.Response:
    problem = check()
    return _say(200, status="ok") if problem is None else _say(503, status="failing", reason=problem)


async def _document(content_type: str, write: Callable[[], str], _request: web.Request) -> web.Response:
    payload = (await asyncio.to_thread(write)).encode()
    return web.Response(body=payload, headers={"Content-Type": content_type})


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """One answer a connection: a probe opens a new one anyway, and an idle one would hold a descriptor."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["Connection"] = "close"
    response.force_close()
    del response.headers["Server"]


def _say(code: int, **body: str) -> web.Response:
    payload = json.dumps(body).encode() + b"\n"
    return web.Response(status=code, body=payload, content_type="application/json")
