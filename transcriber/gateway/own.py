"""The gateway's own paths: probes, and tokens for browsers."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from transcriber.gateway.problems import Problem
from transcriber.gateway.routes import Call, Route
from transcriber.gateway.tokens import LONGEST_SECS
from transcriber.telemetry.prometheus import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from transcriber.broker.connection import Connection
    from transcriber.gateway.gate import Gate
    from transcriber.gateway.parts import Parts
    from transcriber.gateway.tokens import Tokens

_LARGEST_BODY = 64 * 1024  # bytes: a session's configuration has some hundred


def add_own_paths(
    parts: Parts, gate: Gate, tokens: Tokens, connection: Connection, scrape: Callable[[], str] | None
) -> None:
    """Add /livez, /readyz, /health, /v1/realtime/client_secrets, and /metrics if Prometheus is to scrape them."""

    async def live(_request: web.BaseRequest, _call: Call) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(_request: web.BaseRequest, _call: Call) -> web.Response:
        problem = "stopping" if gate.closing else None if connection.up else "NATS is away"
        return _state(problem)

    async def health(_request: web.BaseRequest, _call: Call) -> web.Response:
        workers = await parts.workers.ask() if connection.up else ()
        problem = None if connection.up else "NATS is away"
        if problem is None and not workers:
            problem = "no worker is there"
        return _state(problem, workers=len(workers))

    async def secret(request: web.BaseRequest, call: Call) -> web.Response:
        body = await _json_of(request)
        wanted = body.get("expires_after") or {}
        seconds = wanted.get("seconds", LONGEST_SECS) if isinstance(wanted, dict) else LONGEST_SECS
        if not isinstance(seconds, int | float) or not seconds > 0:
            raise Problem(400, "expires_after.seconds must be above 0", param="expires_after.seconds")
        expires = int(time.time() + min(seconds, LONGEST_SECS))
        token = tokens.make(call.caller.digest, expires)
        session = body.get("session") or {"type": "transcription"}
        return web.json_response({"value": token, "expires_at": expires, "session": session})

    for path, handler in (("/livez", live), ("/readyz", ready), ("/health", health)):
        parts.routes.add("GET", path, Route(handler=handler, free=True))
    if scrape is not None:
        parts.routes.add("GET", "/metrics", Route(handler=partial(_metrics, scrape), free=True))
    parts.routes.add("POST", "/v1/realtime/client_secrets", Route(handler=secret))


async def _metrics(scrape: Callable[[], str], _request: web.BaseRequest, _call: Call) -> web.Response:
    text = await asyncio.to_thread(scrape)
    return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})


def _state(problem: str | None, **more: object) -> web.Response:
    if problem is None:
        return web.json_response({"status": "ok", **more})
    return web.json_response({"status": "failing", "reason": problem, **more}, status=503)


async def _json_of(request: web.BaseRequest) -> dict[str, Any]:
    """The JSON object in the body; an empty one without a body. Raises `Problem` 400 or 413."""
    data = b""
    async for part in request.content.iter_any():
        data += part
        if len(data) > _LARGEST_BODY:
            raise Problem(413, f"the body has more than {_LARGEST_BODY} bytes", code="too_large")
    try:
        body = json.loads(data or b"{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Problem(400, "the body is no JSON object", code="invalid_json")
    return body
