"""Answers HTTP: finds the route, checks who calls, and puts what goes wrong into the words of the path's protocol."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp import web

from transcriber.domain.errors import RequestError
from transcriber.gateway import live_speech, pages, raw_pcm, rest
from transcriber.gateway.head import Head
from transcriber.gateway.problems import Problem, body_of, in_openai_shape, problem_of
from transcriber.gateway.routes import Call
from transcriber.gateway.socket import Socket
from transcriber.protocol import incoming
from transcriber.telemetry.gateway import CallSpan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transcriber.gateway.figures import Figures
    from transcriber.gateway.gate import Gate
    from transcriber.gateway.parts import Parts
    from transcriber.gateway.problems import Shape
    from transcriber.gateway.routes import Route, Routes
    from transcriber.telemetry.gateway import GatewayTelemetry

log = logging.getLogger(__name__)

Upgrade = Callable[[Head, asyncio.Transport], Socket | None]
Register = Callable[["Parts"], None]
# Each adds the paths of one kind.
REGISTERS: tuple[Register, ...] = (rest.register, live_speech.register, raw_pcm.register, pages.register)

_SERVER = "transcriber"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_KEEPALIVE_SECS = 75.0  # more than the 60 s after which proxies close an idle connection
_EXPOSED = "x-request-id, retry-after, x-transcriber-gaps"
_CORS_SECS = "600"


class Site:
    """The handler of all HTTP requests."""

    def __init__(self, routes: Routes, gate: Gate, figures: Figures, telemetry: GatewayTelemetry) -> None:
        self._telemetry = telemetry
        self.upgrade: Upgrade  # set once there is an entrance
        self._routes = routes
        self._gate = gate
        self._figures = figures
        self._server = web.Server(
            self.handle,
            access_log=None,
            keepalive_timeout=_KEEPALIVE_SECS,
            handler_cancellation=True,
        )

    def protocol(self) -> asyncio.Protocol:
        """The protocol of a connection."""
        return self._server()

    @property
    def count(self) -> int:
        """Connections that are open."""
        return len(self._server.connections)

    async def shut_down(self, seconds: float) -> None:
        """Finish the answers that have begun, and close every connection."""
        self._server.pre_shutdown()
        await self._server.shutdown(seconds)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        begin, headers = time.monotonic(), request.headers
        given = headers.get("x-request-id", "")
        request_id = given if given and _REQUEST_ID.fullmatch(given) else new_request_id()
        if headers.get("upgrade", "").lower() == "websocket":
            return self._hand_over(request)
        more = {"x-request-id": request_id, "Server": _SERVER}
        label = "other"
        shape: Shape = in_openai_shape
        response: web.StreamResponse
        try:
            self._gate.check_origin(headers)
            if "origin" in headers:
                more |= _cors(headers["origin"])
            if request.method == "OPTIONS" and "access-control-request-method" in headers:
                return web.Response(status=204, headers=more | _preflight(headers))
            path = request.path
            route, parameters = self._routes.find(request.method, path)
            label, shape = path if not parameters else path.rpartition("/")[0], route.shape
            caller = self._gate.nobody if route.free else self._gate.caller(headers)
            if route.works:
                self._gate.admit()
            span = self._begin(request, route, label)
            call = Call(caller=caller, id=request_id, traceparent=span.traceparent, parameters=parameters, headers=more)
            response = await self._handled(request, route, call, span)
        except Problem as problem:
            response = refusal(problem, shape)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("a request failed", extra={"path": request.path, "request_id": request_id})
            response = refusal(Problem(500, "internal error; see the gateway's log", code="internal_error"), shape)
        if not response.prepared:
            response.headers.update(more)
        self._figures.requests[label, response.status] += 1
        self._telemetry.record(label, time.monotonic() - begin)
        return response

    def _begin(self, request: web.BaseRequest, route: Route, label: str) -> CallSpan:
        """Begin the span of a call, in the trace that the client has sent. Probes get none: they would be the most."""
        given = request.headers.get("traceparent")
        parent = None if given is None else incoming.traceparent_of({"traceparent": given})
        if route.free:
            return CallSpan(None, parent)
        return self._telemetry.begin(f"{request.method} {label}", parent)

    def _hand_over(self, request: web.BaseRequest) -> web.StreamResponse:
        """Open a WebSocket on a connection that has served requests before, as proxies use theirs again."""
        protocol, transport = request.protocol, request.transport
        if transport is None or not isinstance(protocol, web.RequestHandler):
            raise ConnectionResetError
        # aiohttp lets go of the connection: it has nothing to write, and nothing to close.
        tail, protocol._message_tail = protocol._message_tail, b""  # noqa: SLF001 - frames right after the head
        protocol.transport = None
        protocol.force_close()
        self._server.connection_lost(protocol, None)
        headers = {name.lower(): value for name, value in request.headers.items()}
        socket = self.upgrade(Head(request.method, request.raw_path, "HTTP/1.1", headers), transport)
        if socket is not None and tail:
            socket.data_received(tail)
        return _Nothing()

    async def _handled(self, request: web.BaseRequest, route: Route, call: Call, span: CallSpan) -> web.StreamResponse:
        """Call the handler within a span. Raises `Problem`."""
        status = 499  # the client is gone
        try:
            response = await route.handler(request, call)
            status = response.status
        except RequestError as error:
            status = error.code
            raise problem_of(error) from error
        except Problem as problem:
            status = problem.status
            raise
        except Exception:
            status = 500
            raise
        finally:
            span.end(status)
        return response


class _Nothing(web.StreamResponse):
    """What aiohttp has to write when another protocol has taken the connection."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing."""


def new_request_id() -> str:
    """Return an id that no other request has: 128 bits, and no secret."""
    return f"{random.getrandbits(128):032x}"


def _cors(origin: str) -> dict[str, str]:
    """What lets the page read the answer; its origin is allowed."""
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin", "Access-Control-Expose-Headers": _EXPOSED}


def _preflight(headers: Mapping[str, str]) -> dict[str, str]:
    """What a page may do: whatever it asks, as its origin is allowed."""
    return {
        "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
        "Access-Control-Allow-Headers": headers.get("access-control-request-headers", "authorization, content-type"),
        "Access-Control-Max-Age": _CORS_SECS,
    }


def refusal(problem: Problem, shape: Shape) -> web.Response:
    """The answer that tells of a problem."""
    body = body_of(problem, shape)
    response = web.Response(status=problem.status, body=body, content_type="application/json", headers=problem.headers)
    if problem.status >= 400 and problem.status not in {404, 405}:  # noqa: PLR2004 - the body may not have been read
        response.force_close()
    return response
