"""A JSON answer of HTTP whose head and body are written in one piece, as aiohttp's general way costs more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from transcriber.gateway.native import json_dumps

if TYPE_CHECKING:
    from collections.abc import Mapping

_HTTP_1_1 = (1, 1)


class JsonAnswer(web.StreamResponse):
    """Status 200 and a JSON object. Headers may be added until it is prepared."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__()
        self._json = json_dumps(body).encode()

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write all of it."""
        keep = self._keep_alive = request.keep_alive if self._keep_alive is None else self._keep_alive
        lines = [f"{name}: {value}\r\n" for name, value in self.headers.items()]
        if not keep:
            lines.append("Connection: close\r\n")
        elif request.version < _HTTP_1_1:
            lines.append("Connection: keep-alive\r\n")
        head = (
            f"HTTP/{request.version[0]}.{request.version[1]} 200 OK\r\n"
            "Content-Type: application/json; charset=utf-8\r\n"
            f"Content-Length: {len(self._json)}\r\nDate: {rfc822_formatted_time()}\r\n{''.join(lines)}\r\n"
        )
        await request.writer.write_eof(head.encode() + self._json)

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing more."""
