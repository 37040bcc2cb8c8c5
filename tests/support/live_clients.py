"""Hundreds of live clients of a gateway in one process: each a protocol of asyncio that keeps account."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
import time
from dataclasses import dataclass, field
from typing import Any, cast

RATE = 8000  # Hz: hundreds of streams share two cores with everything else
_HEAD = (
    "GET /v2/decode/stream/any?sample_rate=%d HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_ANSWERS = {"final", "partial"}


@dataclass
class Told:
    """What a client was told, in seconds of its own audio."""

    gaps: dict[str, float] = field(default_factory=dict)
    transcribed: float = 0.0
    ended: dict[str, Any] | None = None
    at: float = 0.0  # up to where anything was told

    def take(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "ended":
            self.ended = message
        elif kind in {"final", "gap"}:
            seconds = message["end"] - message["start"]
            self.at = max(self.at, message["end"])
            if kind == "final":
                self.transcribed += seconds
            else:
                self.gaps[message["reason"]] = self.gaps.get(message["reason"], 0.0) + seconds


class LiveClient(asyncio.Protocol):
    """One connection."""

    def __init__(self, rate: int = RATE) -> None:
        self.rate = rate
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[int] = loop.create_future()  # gets the code
        self.told = Told()
        self.sent = 0.0  # seconds
        self.pings = self.pongs = 0  # that came
        self.mark: tuple[float, float] | None = None  # since when, and for which audio, an answer is waited for
        self.waits: list[float] = []  # until that was answered
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write((_HEAD % self.rate).encode())

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(1006)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self.opened.done():
            head, end, rest = bytes(self._data).partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.opened.set_exception(ConnectionError(head.decode()))
                return
            self.opened.set_result(None)
            self._data = bytearray(rest)
        while (frame := self._frame()) is not None:
            self._take(*frame)

    def _frame(self) -> tuple[int, bytes] | None:
        data = self._data
        if len(data) < 2:
            return None
        size, start = data[1], 2
        if size == 126:
            if len(data) < 4:
                return None
            size, start = int.from_bytes(data[2:4], "big"), 4
        if len(data) < start + size:
            return None
        frame = data[0] & 15, bytes(data[start : start + size])
        del data[: start + size]
        return frame

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == 8:
            self.closed.set_result(int.from_bytes(payload[:2], "big"))
            self.send(payload, 8)
        elif opcode == 9:
            self.pings += 1
            self.send(payload, 10)
        elif opcode == 10:
            self.pongs += 1
        elif opcode == 1:
            message = json.loads(payload)
            self.told.take(message)
            if self.mark is not None and message["type"] in _ANSWERS and message["end"] > self.mark[1]:
                self.waits.append(time.monotonic() - self.mark[0])
                self.mark = None

    def expect(self) -> None:
        """Wait for an answer about audio that is sent from now on."""
        self.mark = time.monotonic(), self.sent

    def send(self, payload: bytes, opcode: int = 2) -> None:
        size = len(payload)
        head = (
            struct.pack("!BB", 128 | opcode, 128 | size) if size < 126 else struct.pack("!BBH", 128 | opcode, 254, size)
        )
        self.transport.write(head + bytes(4) + payload)

    def speak(self, pcm: bytes) -> None:
        self.send(pcm)
        self.sent += len(pcm) / 2 / self.rate

    def end(self) -> None:
        self.send(b'{"type":"end"}', 1)


async def connected(port: int, number: int, tls: ssl.SSLContext | None = None, rate: int = RATE) -> list[LiveClient]:
    """Connect so many."""
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(number):
        _, client = await loop.create_connection(lambda: LiveClient(rate), "127.0.0.1", port, ssl=tls)
        clients.append(client)
    await asyncio.gather(*(client.opened for client in clients))
    return clients


async def speaking(clients: list[LiveClient], pcm: bytes, stop: asyncio.Event, chunk_secs: float = 0.2) -> float:
    """Send the recording over and over in real time, each client from a place of its own.

    Returns by how many seconds the sender itself was late at most.
    """
    size = 2 * int(clients[0].rate * chunk_secs)
    chunks = [pcm[at : at + size] for at in range(0, len(pcm) - size, size)]
    begin, number, late, count = time.monotonic(), 0, 0.0, len(clients)
    while not stop.is_set():
        for place, client in enumerate(clients):
            due = begin + (number + place / count) * chunk_secs
            if (left := due - time.monotonic()) > 0:
                await asyncio.sleep(left)
            elif place % 50 == 0:
                late = max(late, -left)
                await asyncio.sleep(0)
            client.speak(chunks[(number + 7 * place) % len(chunks)])
        number += 1
    return late
