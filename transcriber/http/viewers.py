"""Server-sent events to a bounded number of viewers: one message a second, made once for all of them."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

from transcriber.http.answers import answer, opening

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

MOST = 16  # viewers: a team and a few forgotten tabs; each may hold _SEND_BYTES and one message
_INTERVAL_SECS = 1.0  # between two messages: as often as somebody reads figures
_SLOW_SECS = 10.0  # until a viewer is dropped that takes nothing: a phone between two cells is back sooner
_SEND_BYTES = 128 * 1024  # what the kernel holds for a viewer: some messages; left alone it would take megabytes
_CONTENT = "text/event-stream"
_RETRY = b"retry: 2000\n\n"  # milliseconds until a browser comes back: a restarted daemon takes some seconds


class Viewers:
    """Sends what `read` returns. While nobody looks there is no task and nothing is read."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        """`read` gives one message's data, without line breaks."""
        self._read = read
        self._waiting: dict[asyncio.StreamWriter, float | None] = {}  # since when a message is on its way to whom
        self._newest = b""
        self._sending: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, head: bool) -> None:
        """Let one viewer look until it goes away, or is dropped for taking nothing."""
        if head:
            writer.write(opening("200 OK", _CONTENT))
            return
        if len(self) >= MOST:
            refusal = f"{MOST} viewers are looking already\n".encode()
            writer.write(answer("503 Service Unavailable", "text/plain", refusal, "Retry-After: 5"))
            return
        if (connection := writer.get_extra_info("socket")) is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        writer.write(opening("200 OK", _CONTENT) + _RETRY)
        self._waiting[writer] = None
        try:
            if self._sending is None or self._sending.done():
                self._sending = asyncio.create_task(self._send())
            else:
                writer.write(self._newest)
            await reader.read(1)  # a viewer has nothing more to say: this is how we hear that it has gone
        finally:
            del self._waiting[writer]
            writer.transport.abort()

    def close(self) -> None:
        """Drop everybody at once."""
        if self._sending is not None:
            self._sending.cancel()
        self._drop_all()

    async def _send(self) -> None:
        try:
            while self._waiting:
                self._newest = b"data: " + self._read() + b"\n\n"
                for writer in list(self._waiting):
                    self._send_to(writer, asyncio.get_running_loop().time())
                await asyncio.sleep(_INTERVAL_SECS)
        except Exception:  # a page that fails must not be more than a page that fails
            log.exception("the status page failed")
            self._drop_all()

    def _send_to(self, writer: asyncio.StreamWriter, now: float) -> None:
        """Send the newest message, unless the one before is still on its way: nobody needs an old one."""
        since = self._waiting[writer]
        if not writer.transport.get_write_buffer_size():
            writer.write(self._newest)
            self._waiting[writer] = None
        elif since is None:
            self._waiting[writer] = now
        elif now - since > _SLOW_SECS:
            writer.transport.abort()

    def _drop_all(self) -> None:
        for writer in self._waiting:
            writer.transport.abort()
