"""`python -m benchmarks.stub_worker`: answers every recording after 10 to 50 ms, whatever it holds.

It stands in for a worker, so that the gateway's own cost is seen.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import TYPE_CHECKING

from transcriber import settings
from transcriber.broker.connection import Connection
from transcriber.gateway.native import runner

if TYPE_CHECKING:
    from nats.aio.msg import Msg

DELAY_SECS = 0.01, 0.05  # evenly spread between them
_WEIGHT = 0.01  # of each answer in what is known of the timers: the last hundred count

_ANSWER = json.dumps(
    {
        "v": 1,
        "type": "final",
        "text": "stub",
        "language": "en",
        "confidence": 1.0,
        "model": "stub",
        "segments": [{"start": 0.0, "end": 0.1, "text": "stub", "confidence": 1.0, "words": []}],
        "latency": {"queue": 0.0, "processing": 0.03, "end_to_end": 0.03},
    }
).encode()
_STATS = json.dumps({"name": "transcriber", "id": "stub", "endpoints": [{"data": {"model": "stub"}}]}).encode()


async def main() -> None:
    """Answer until the process is ended."""
    connection = Connection(settings.load().broker, name="stub worker")
    await connection.open()
    loop, client = asyncio.get_running_loop(), connection.client
    late = 0.0  # seconds, by which timers fire after their time; the mean delay must be what is told

    async def on_request(message: Msg) -> None:
        delay = random.uniform(*DELAY_SECS)  # noqa: S311 - no secret
        loop.call_later(delay - late, answer, message.reply, time.monotonic() + delay)

    def answer(reply: str, due: float) -> None:
        nonlocal late
        late += (time.monotonic() - due) * _WEIGHT
        client.put(b"PUB %b %d\r\n%b\r\n" % (reply.encode(), len(_ANSWER), _ANSWER))

    async def on_stats(message: Msg) -> None:
        await connection.publish(message.reply, _STATS)

    await connection.subscribe("transcribe.*", on_request)
    await connection.subscribe("$SRV.STATS.transcriber", on_stats)
    await connection.confirm()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await connection.lost


if __name__ == "__main__":
    with runner() as loop:
        loop.run(main())
