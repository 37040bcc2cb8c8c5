"""Serves the status page's two paths: the page itself, and its figures as server-sent events."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from transcriber.http.overview import Overview
from transcriber.http.viewers import Viewers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp.typedefs import Handler

    from transcriber.domain.measurements import Tallies
    from transcriber.http.overview import PageEntry, PageState

PAGE, EVENTS = "/", "/events"
# From RFC 6761 and RFC 6762; ICANN reserved "internal" in 2024; names of services inside a cluster end in "svc".
_PRIVATE = frozenset({"localhost", "local", "internal", "svc"})
_FILE = Path(__file__).with_name("index.html")


class StatusPage:
    """Keeps the last texts and serves them, with the daemon's figures, on the health port."""

    def __init__(self, tallies: Tallies, page_state: Callable[[], PageState]) -> None:
        self._overview = Overview(tallies)
        self._page_state = page_state
        self._viewers = Viewers(self._read)
        self._html = _FILE.read_bytes()
        self._headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": policy(self._html.decode()),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        self.handlers: Mapping[str, Handler] = {PAGE: self._show, EVENTS: self._viewers.serve}

    def add(self, entry: PageEntry) -> None:
        """Take the result of a window, or a gap outside any window."""
        self._overview.add(entry, time.time())

    @staticmethod
    def refusal(host: str) -> str | None:
        """Return what is wrong with a host name that a stranger could own; None for any other.

        A web page can point a name of its own at this machine, and then read our pages as its own origin (DNS
        rebinding). Safe are addresses, names without a dot, and endings that do not exist in public DNS.
        """
        name = host.lower().rstrip(".")
        if "." not in name or name.rpartition(".")[2] in _PRIVATE or _is_address(name):
            return None
        return f"Host: {host}; allowed: addresses, names without a dot, {', '.join(f'.{p}' for p in sorted(_PRIVATE))}"

    async def _show(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._html, headers=self._headers)

    def close(self) -> None:
        """Disconnect every viewer at once."""
        self._viewers.close()

    def _read(self) -> bytes:
        view = self._overview.view(self._page_state(), time.monotonic()) | {"now": time.time()}
        return json.dumps(view, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def policy(html: str) -> str:
    """Build the Content-Security-Policy: the browser may use the page's own style and script and our events, no more.

    Transcripts are foreign text. Trusted types keep every script from turning text into markup.
    """
    style, script = (re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL) for tag in ("style", "script"))
    sources = {
        "default-src": "'none'",
        "style-src": _hashed(style),
        "script-src": _hashed(script),
        "connect-src": "'self'",
        "img-src": "data:",  # the empty icon
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {source}" for name, source in sources.items())


def _hashed(found: re.Match[str] | None) -> str:
    if found is None:
        return "'none'"
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"
