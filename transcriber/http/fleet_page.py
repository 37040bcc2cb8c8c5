"""Serves the fleet page's two paths: the page itself, and a member's view of its fleet as server-sent events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from transcriber.http.page import Page
from transcriber.http.viewers import Viewers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp.typedefs import Handler

PAGE, EVENTS = "/fleet", "/fleet/events"
_FILE = Path(__file__).with_name("fleet.html")


class FleetPage:
    """Shows what `view` returns, which is what `transcriber fleet status --json` prints."""

    def __init__(self, view: Callable[[], Mapping[str, Any]]) -> None:
        self._view = view
        self._viewers = Viewers(self._read)
        self._page = Page(_FILE)
        self.handlers: Mapping[str, Handler] = {PAGE: self._show, EVENTS: self._viewers.serve}

    async def _show(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._page.body, headers=self._page.headers)

    def close(self) -> None:
        """Disconnect every viewer at once."""
        self._viewers.close()

    def _read(self) -> bytes:
        return json.dumps(compact(self._view()), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def compact(view: Mapping[str, Any]) -> dict[str, Any]:
    """Write the partitions as rows of owner, next owner (numbers in `owners`, -1: none), epoch and streams.

    The page of the largest fleet then fits into what the kernel holds for a viewer. Members get the count of theirs.
    """
    rows = view["partitions"]
    owners = sorted({name for row in rows for name in (row["owner"], row["to"]) if name is not None})
    at = {name: number for number, name in enumerate(owners)} | {None: -1}
    return {
        **view,
        "owners": owners,
        "members": [member | {"partitions": len(member["partitions"])} for member in view["members"]],
        "partitions": [[at[row["owner"]], at[row["to"]], row["epoch"], row["load"]] for row in rows],
    }
