"""Sends server-sent events to a bounded number of viewers: one message a second, made once for all."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from types import MappingProxyType
from typing import TYPE_CHECKING

from aiohttp import web

from transcriber.http.server import ACCEPTOR

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp.abc import AbstractStreamWriter

log = logging.getLogger(__name__)

MOST = 16  # viewers: a team and a few forgotten tabs; each may take up _SEND_BYTES and one message
_INTERVAL_SECS = 1.0  # between two messages: nobody reads figures faster
_SLOW_SECS = 10.0  # a viewer that reads nothing for so long is dropped; a phone between two cells is back sooner
_SEND_BYTES = 128 * 1024  # the kernel's buffer for a viewer: some messages; by default it grows to megabytes
_RETRY = b"retry: 2000\n\n"  # milliseconds until a browser reconnects: a daemon restarts within seconds


class Viewers:
    """Sends what `read` returns. Without viewers, `read` is not called."""

    def __init__(self, read: Callable[[], bytes], keep: Callable[[web.BaseRequest], bool] | None = None) -> None:
        """`read` returns one message's data, without line breaks. `keep` says whether a viewer may stay connected."""
        self._read = read
        self._keep = keep or _has_place
        self._looking: set[asyncio.Transport] = set()
        self._newest = b""
        self._made = -math.inf

    def __len__(self) -> int:
        return len(self._looking)

    async def serve(
        self, request: web.BaseRequest, headers: Mapping[str, str] = MappingProxyType({})
    ) -> web.StreamResponse:
        """Serve one viewer until it disconnects, or is dropped because it reads nothing. `headers`: more of them."""
        kind = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers={**headers, **kind})
        transport = request.transport
        if request.method == "HEAD" or transport is None:
            return response
        if len(self) >= MOST:
            return _refusal(f"{MOST} viewers are connected already")
        if not self._keep(request):
            return _refusal("no file descriptor is free for a viewer")
        self._looking.add(transport)
        try:
            transport.set_write_buffer_limits(0)  # send a message only when the one before is gone
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
            writer = await response.prepare(request)
            if writer is not None:
                await self._send(writer)
        except (ConnectionError, TimeoutError):
            pass
        except Exception:  # a broken page must not take the daemon down
            log.exception("the status page failed")
        finally:
            self._looking.discard(transport)
            transport.abort()
        return response

    def close(self) -> None:
        """Disconnect every viewer at once."""
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
        """Return the newest message, which is made at most once per interval for all viewers."""
        now = asyncio.get_running_loop().time()
        if now - self._made >= _INTERVAL_SECS:
            self._newest = b"data: " + self._read() + b"\n\n"
            self._made = now
        return self._newest


def _has_place(request: web.BaseRequest) -> bool:
    """Whether the health port has a file descriptor for this viewer."""
    transport = request.transport
    return isinstance(request, web.Request) and transport is not None and request.app[ACCEPTOR].keep(transport)


def _refusal(reason: str) -> web.Response:
    return web.Response(status=503, text=f"{reason}\n", headers={"Retry-After": "5"})
