"""`python -m benchmarks.stub_worker`: answers every recording after 10 to 50 ms, whatever it holds.

It stands in for a worker, so that the gateway's own cost is seen.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

from benchmarks import bare_nats
from transcriber import settings
from transcriber.gateway.native import runner

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
    loop = asyncio.get_running_loop()
    late = 0.0  # seconds, by which timers fire after their time; the mean delay must be what is told

    def on_request(_subject: bytes, reply: bytes, _payload: bytes) -> None:
        delay = random.uniform(*DELAY_SECS)  # noqa: S311 - no secret
        loop.call_later(delay - late, answer, reply, time.monotonic() + delay)

    def answer(reply: bytes, due: float) -> None:
        nonlocal late
        late += (time.monotonic() - due) * _WEIGHT
        client.publish(reply, _ANSWER)

    def on_stats(_subject: bytes, reply: bytes, _payload: bytes) -> None:
        client.publish(reply, _STATS)

    takes = (("transcribe.*", on_request), ("$SRV.STATS.transcriber", on_stats))
    client = await bare_nats.connect(settings.load().broker.url, takes)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await client.lost


if __name__ == "__main__":
    with runner() as loop:
        loop.run(main())
