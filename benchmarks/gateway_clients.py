"""Clients of a gateway's raw WebSocket, thousands in one process: each a protocol of asyncio, without a task."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import struct
import time
from typing import cast

from benchmarks.gateway_worker import RATE, STAMP

_PATH = f"/v2/decode/stream/any?sample_rate={RATE}"
_HEAD = (
    f"GET {_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()
_STAMP = re.compile(rb'"transcription": ?"(\d+)"')
_BINARY, _MASKED = 0x82, 0x80
_SHORT, _MEDIUM = 126, 65_536  # bytes, from which a frame's length takes two or eight bytes more
_NO_MASK = bytes(4)  # a mask of zeros changes nothing, and costs nothing
AT_ONCE = 256  # connections that are opened at a time, unless all at once are the point
_BEGIN_RATE = 5_000  # sessions that are opened in a second: clients that are idle do not come as a burst
_TURN = 8  # chunks that are sent in a row: more would come as a burst that no real clients make, and delay what is read


class Clients:
    """Counts what its clients hear."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.open: list[Client] = []
        self.refused = self.closed = 0
        self.late: list[float] = []  # seconds from the worker's stamp to the client

    async def connect(self, number: int, at_once: int = AT_ONCE) -> float:
        """Open connections; returns the seconds until all were accepted or refused."""
        begin, room = time.monotonic(), asyncio.Semaphore(at_once)

        async def one() -> None:
            async with room:
                loop = asyncio.get_running_loop()
                _, client = await loop.create_connection(lambda: Client(self), "127.0.0.1", self._port)
                if await client.answered:
                    self.open.append(client)
                else:
                    self.refused += 1

        await asyncio.gather(*(one() for _ in range(number)))
        return time.monotonic() - begin

    async def close(self) -> None:
        """Close all connections, and wait for it."""
        for client in self.open:
            client.transport.abort()
        self.open.clear()
        await asyncio.sleep(1.0)

    async def begin(self) -> None:
        """Send a chunk of 100 ms on each connection, so that its session opens."""
        for place, client in enumerate(self.open):
            client.send(_Frame(RATE // 5).stamped(time.monotonic_ns()))
            if place % _TURN == 0:
                await asyncio.sleep(_TURN / _BEGIN_RATE)

    async def speak(self, seconds: float, chunk_ms: int) -> list[float]:
        """Send chunks on all connections in real time, spread over a chunk's length.

        Returns by how many seconds each one was late.
        """
        frame, begin = _Frame(2 * RATE * chunk_ms // 1000), time.monotonic()
        rounds = round(seconds * 1000 / chunk_ms)
        step = chunk_ms / 1000 / max(1, len(self.open))
        late: list[float] = []
        for number in range(rounds):
            for place, client in enumerate(self.open):
                due = begin + number * chunk_ms / 1000 + place * step
                if (left := due - time.monotonic()) > 0:
                    await asyncio.sleep(left)
                elif place % _TURN == 0:
                    await asyncio.sleep(0)
                now = time.monotonic_ns()
                late.append(now / 1e9 - due)
                client.send(frame.stamped(now))
        return late


class _Frame:
    """A WebSocket frame with a chunk that says when it was sent. All clients use it, as the system copies it anyway."""

    def __init__(self, size: int) -> None:
        if size < _SHORT:
            head = struct.pack("!BB", _BINARY, _MASKED | size)
        elif size < _MEDIUM:
            head = struct.pack("!BBH", _BINARY, _MASKED | 126, size)
        else:
            head = struct.pack("!BBQ", _BINARY, _MASKED | 127, size)
        head += _NO_MASK
        self._data, self._at = bytearray(head + bytes(size)), len(head)

    def stamped(self, now: int) -> bytearray:
        """The frame as it is sent now, in nanoseconds. It changes at the next call."""
        STAMP.pack_into(self._data, self._at, now)
        return self._data


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._head: bytes | None = b""
        self.answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._socket: int | None = transport.get_extra_info("socket").fileno()
        self.transport.write(_HEAD)

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            if b"\r\n\r\n" not in self._head:
                return
            self.answered.set_result(self._head.startswith(b"HTTP/1.1 101"))
            self._head = None
            return
        now = time.monotonic_ns()
        self._clients.late.extend((now - int(stamp)) / 1e9 for stamp in _STAMP.findall(data))

    def connection_lost(self, _error: Exception | None) -> None:
        self._clients.closed += 1
        self._socket = None  # another connection may get its number
        if not self.answered.done():
            self.answered.set_result(False)

    def send(self, frame: bytearray) -> None:
        """Send a frame directly, which costs less than the event loop's way. What does not go out waits there."""
        if self._socket is None:
            return
        sent = 0
        if not self.transport.get_write_buffer_size():
            with contextlib.suppress(OSError):  # full, or the other side is gone
                sent = os.write(self._socket, frame)
        if sent < len(frame):
            self.transport.write(bytes(frame[sent:]))
