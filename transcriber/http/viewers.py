"""Server-sent events to a bounded number of viewers: one message a second, made once for all of them."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from typing import TYPE_CHECKING

from aiohttp import web

from transcriber.http.server import LISTENER

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.abc import AbstractStreamWriter

log = logging.getLogger(__name__)

MOST = 16  # viewers: a team and a few forgotten tabs; each may hold _SEND_BYTES and one message
_INTERVAL_SECS = 1.0  # between two messages: as often as somebody reads figures
_SLOW_SECS = 10.0  # until a viewer is dropped that takes nothing: a phone between two cells is back sooner
_SEND_BYTES = 128 * 1024  # what the kernel holds for a viewer: some messages; left alone it would take megabytes
_RETRY = b"retry: 2000\n\n"  # milliseconds until a browser comes back: a restarted daemon takes some seconds


class Viewers:
    """Sends what `read` returns. While nobody looks, nothing is read."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        """`read` gives one message's data, without line breaks."""
        self._read = read
        self._looking: set[asyncio.Transport] = set()
        self._newest = b""
        self._made = -math.inf

    def __len__(self) -> int:
        return len(self._looking)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Let one viewer look until it goes away, or is dropped for taking nothing."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        transport = request.transport
        if request.method == "HEAD" or transport is None:
            return response
        if len(self) >= MOST:
            return _refusal(f"{MOST} viewers are looking already")
        if not request.app[LISTENER].keep(transport):
            return _refusal("no file descriptor is free for a viewer")
        self._looking.add(transport)
        try:
            transport.set_write_buffer_limits(0)  # a message is sent when nothing of the one before is left
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
            writer = await response.prepare(request)
            if writer is not None:
                await self._send(writer)
        except (ConnectionError, TimeoutError):
            pass
        except Exception:  # a page that fails must not be more than a page that fails
            log.exception("the status page failed")
        finally:
            self._looking.discard(transport)
            transport.abort()
        return response

    def close(self) -> None:
        """Drop everybody at once."""
        for transport in self._looking:
            transport.abort()

    async def _send(self, writer: AbstractStreamWriter) -> None:
        message = _RETRY + self._message()
        while True:
            async with asyncio.timeout(_SLOW_SECS):
                await writer.write(message)
                await writer.drain()
            await asyncio.sleep(_INTERVAL_SECS)
            message = self._message()

    def _message(self) -> bytes:
        """The newest message, made once an interval however many want it."""
        now = asyncio.get_running_loop().time()
        if now - self._made >= _INTERVAL_SECS:
            self._newest = b"data: " + self._read() + b"\n\n"
            self._made = now
        return self._newest


def _refusal(reason: str) -> web.Response:
    return web.Response(status=503, text=f"{reason}\n", headers={"Retry-After": "5"})
