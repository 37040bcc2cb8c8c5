"""The gateway's own pages: a dashboard, and a microphone that shows what it hears."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from transcriber.gateway.pages.dashboard import Dashboard
from transcriber.gateway.problems import Problem
from transcriber.gateway.routes import Route
from transcriber.http import page
from transcriber.http.viewers import Viewers

if TYPE_CHECKING:
    from transcriber.gateway.parts import Parts
    from transcriber.gateway.routes import Call, Handler

_FOLDER = Path(__file__).parent
_WORKLET = (_FOLDER / "mic_worklet.js").read_bytes()
_FRESH = {"Cache-Control": "no-store"}  # a page and its script belong together


def register(parts: Parts) -> None:
    """Add the pages. None needs a key: they hold figures, and no text of anybody."""
    viewers = Viewers(Dashboard(parts).read, keep=lambda _: True)
    dashboard = page.Page(_FOLDER / "dashboard.html")
    # The worklet is a script of our own origin; a policy knows no hash for such a file.
    mic = page.Page(_FOLDER / "mic.html", {"script-src": "'self'"})
    handlers = {
        "/dashboard": _private(_show(dashboard)),
        "/dashboard/events": _private(lambda request, call: viewers.serve(request, call.headers)),
        "/mic": _show(mic),
        "/mic/worklet.js": _worklet,
    }
    for path, handler in handlers.items():
        parts.routes.add("GET", path, Route(handler=handler, free=True))


def _show(shown: page.Page) -> Handler:
    async def show(_request: web.BaseRequest, _call: Call) -> web.StreamResponse:
        return web.Response(body=shown.body, headers={**shown.headers, **_FRESH})

    return show


async def _worklet(_request: web.BaseRequest, _call: Call) -> web.StreamResponse:
    script = {"Content-Type": "text/javascript; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return web.Response(body=_WORKLET, headers=script | _FRESH)


def _private(handler: Handler) -> Handler:
    """Refuse names that a stranger could own: his page could read ours."""

    async def check(request: web.BaseRequest, call: Call) -> web.StreamResponse:
        host = re.sub(r":\d*$", "", request.headers.get("Host", "").strip())
        if (refusal := page.refusal(host)) is not None:
            raise Problem(421, refusal, code="host_not_allowed")
        return await handler(request, call)

    return check
