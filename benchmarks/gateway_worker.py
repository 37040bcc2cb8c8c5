"""`python -m benchmarks.gateway_worker`: stands in for the daemons that a gateway needs, at next to no cost.

It checks every chunk's offset, and notes how old its stamp is. Each tenth chunk is answered with a final that carries a
stamp of its own. A request to `benchmarks.figures` is answered with what was found.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import struct
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.report import percentiles
from transcriber.broker.connection import Connection
from transcriber.broker.options import BrokerOptions
from transcriber.gateway.native import runner
from transcriber.protocol import headers as names

if TYPE_CHECKING:
    from nats.aio.msg import Msg

STAMP = struct.Struct("<q")  # nanoseconds of the monotonic clock, which all processes of a machine share
FIGURES = "benchmarks.figures"
RATE = 16_000
_EVERY = 10  # chunks for a final, as in speech of a window a second
_OFFSET = f"{names.OFFSET}: ".encode()
_SESSION = f"{names.SESSION}: ".encode()
_END = f"{names.EVENT}: end".encode()
_NOTHING: dict[str, Any] = {"transcribed": 0.0, "silent": 0.0, "gap": {}, "pending": 0.0}
_TEXT: dict[str, Any] = {
    "language": "en",
    "confidence": 1.0,
    "model": "none",
    "segments": [],
    "closed": "pause",
}


class Worker:
    """Counts what comes, by stream."""

    def __init__(self, connection: Connection) -> None:
        self._client = connection.client
        self._next: dict[bytes, int] = {}  # by subject: the offset that must come
        self._forget()

    def _forget(self) -> None:
        self._late: list[float] = []
        self._chunks = self._lost = 0

    async def start(self) -> None:
        """Subscribe."""
        self._client.listen("audio.*", self._hear)
        await self._client.subscribe("$SRV.STATS.transcriber", cb=self._tell_state)
        await self._client.subscribe(FIGURES, cb=self._tell_figures)
        await self._client.flush()

    def _hear(self, subject: bytes, block: bytes, payload: bytes) -> None:
        now, offset = time.monotonic_ns(), int(_value(block, _OFFSET))
        self._lost += offset != self._next.get(subject, 0)
        if len(payload) < STAMP.size:
            if _END in block:
                del self._next[subject]
                self._say(subject, block, {"type": "ended", "received": offset / RATE, **_NOTHING})
            return
        self._next[subject] = end = offset + len(payload) // 2
        self._chunks += 1
        self._late.append((now - STAMP.unpack_from(payload)[0]) / 1e9)
        if self._chunks % _EVERY == 0:
            bounds = {"start": 0.0, "end": end / RATE}
            self._say(subject, block, {"type": "final", **bounds, **_TEXT, "text": str(time.monotonic_ns())})

    def _say(self, subject: bytes, block: bytes, body: dict[str, Any]) -> None:
        stream = subject.partition(b".")[2]
        about = {"v": 1, "stream": stream.decode(), "session": _value(block, _SESSION).decode()}
        payload = json.dumps({**about, **body}).encode()
        self._client.put(b"PUB transcript.%b.final %d\r\n%b\r\n" % (stream, len(payload), payload))

    async def _tell_state(self, message: Msg) -> None:
        state = {"depth": 0, "capacity": 100, "estimated_wait": 0.0, "streams": 0, "model": "none"}
        endpoints = [{"name": "transcribe", "data": state}]
        await message.respond(json.dumps({"id": IDENTITY, "name": "transcriber", "endpoints": endpoints}).encode())

    async def _tell_figures(self, message: Msg) -> None:
        late = percentiles(self._late, 50, 99)
        found = {"chunks": self._chunks, "lost": self._lost, "late": late}
        self._forget()
        await message.respond(json.dumps(found).encode())


IDENTITY = secrets.token_hex(4)


def _value(block: bytes, name: bytes) -> bytes:
    """The value of a header that is there."""
    start = block.index(name) + len(name)
    return block[start : block.index(b"\r\n", start)]


async def _main() -> None:
    connection = Connection(BrokerOptions(url=os.environ["NATS_URL"]), name="benchmarks worker")
    await connection.open()
    await Worker(connection).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with runner() as loop:
        loop.run(_main())
