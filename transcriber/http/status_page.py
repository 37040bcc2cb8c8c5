"""Serves the status page's paths: the page itself, its figures as server-sent events, and the fleet page."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from transcriber.http import page
from transcriber.http.fleet_page import FleetPage
from transcriber.http.overview import Overview
from transcriber.http.viewers import Viewers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from aiohttp.typedefs import Handler

    from transcriber.domain.measurements import Tallies
    from transcriber.http.overview import PageEntry, PageState

PAGE, EVENTS = "/", "/events"
_FILE = Path(__file__).with_name("index.html")


class StatusPage:
    """Keeps the last texts and serves them, with the daemon's figures, on the health port."""

    def __init__(
        self,
        tallies: Tallies,
        page_state: Callable[[], PageState],
        fleet_view: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """`fleet_view` returns what the fleet page shows; None: there is no fleet, and no page of it."""
        self._overview = Overview(tallies)
        self._page_state = page_state
        self._viewers = Viewers(self._read)
        self._page = page.Page(_FILE)
        self._fleet = FleetPage(fleet_view) if fleet_view is not None else None
        more = self._fleet.handlers if self._fleet is not None else {}
        self.handlers: Mapping[str, Handler] = {PAGE: self._show, EVENTS: self._viewers.serve, **more}

    def add(self, entry: PageEntry) -> None:
        """Take the result of a window, or a gap outside any window."""
        self._overview.add(entry, time.time())

    @staticmethod
    def refusal(host: str) -> str | None:
        """Return what is wrong with a host name that a stranger could own; None for any other."""
        return page.refusal(host)

    async def _show(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._page.body, headers=self._page.headers)

    def close(self) -> None:
        """Disconnect every viewer at once."""
        self._viewers.close()
        if self._fleet is not None:
            self._fleet.close()

    def _read(self) -> bytes:
        more = {"now": time.time(), "fleet": self._fleet is not None}
        view = self._overview.view(self._page_state(), time.monotonic()) | more
        return json.dumps(view, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
