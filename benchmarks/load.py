"""`python -m benchmarks.load PLAN`: many producers in one process, in real time.

Every chunk goes out when its last sample would have been recorded. By default the streams' chunks are spread evenly
over a chunk's length, like those of independent producers. It prints one JSON line when it begins and one when it is
done.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Self
from uuid import uuid4

import numpy as np

from benchmarks import speech
from transcriber import settings
from transcriber.broker.connection import Connection
from transcriber.protocol import incoming

RATE = 48_000  # Hz, of the bundled recording
NAP = 0.001  # seconds: the resolution of epoll's timeout
_FRAME_BYTES = 2  # s16 mono
_GOLDEN = 0.618_033_988_749_895  # any number of its multiples, modulo one, is spread evenly
_TURN = 32  # messages without a pause, after which the connection may run


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`streams` streams, each `seconds` long, of the recording lengthened to `cycle` seconds and repeated."""

    prefix: str
    streams: int
    seconds: float
    chunk_ms: int
    cycle: float
    in_step: bool = False  # all streams' chunks at once instead of spread evenly
    speed: float = 1.0  # times real time
    rate: int = RATE  # Hz; the daemon must have it as AUDIO_SAMPLE_RATE
    nap: float = NAP  # a pause's least seconds; chunks that are due in it go out late

    @classmethod
    def new(  # noqa: PLR0913 - all of it is what a plan is made of
        cls,
        streams: int,
        seconds: float,
        chunk_ms: int,
        cycle: float,
        *,
        in_step: bool = False,
        speed: float = 1.0,
        rate: int = RATE,
        nap: float = NAP,
    ) -> Self:
        """A plan with unique streams and sessions, and `seconds` of audio on each."""
        return cls(
            prefix=f"bench-{uuid4().hex[:8]}",
            streams=streams,
            seconds=seconds,
            chunk_ms=chunk_ms,
            cycle=cycle,
            in_step=in_step,
            speed=speed,
            rate=rate,
            nap=nap,
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(**json.loads(text))

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @property
    def chunk_frames(self) -> int:
        return self.rate * self.chunk_ms // 1000

    @property
    def chunks(self) -> int:
        """Of each stream."""
        return max(1, round(self.seconds * 1000 / self.chunk_ms))

    @property
    def audio_seconds(self) -> float:
        """Of each stream: whole chunks."""
        return self.chunks * self.chunk_ms / 1000

    def stream(self, number: int) -> str:
        return f"{self.prefix}-{number}"

    def phase(self, number: int) -> float:
        """Where in the cycle the stream begins, in seconds."""
        return round(number * _GOLDEN % 1 * self.cycle * 1000) / 1000

    def begin(self, number: int) -> float:
        """Seconds from the common beginning to the stream's first sample."""
        return 0.0 if self.in_step else number / self.streams * self.chunk_ms / 1000

    def spoken(self, number: int, utterance: speech.Utterance) -> list[tuple[float, float]]:
        """Where the utterance starts and ends in the stream, in seconds, unless the stream cuts it off."""
        shift, found = utterance.start - self.phase(number), []
        length = utterance.end - utterance.start
        while shift + length <= self.audio_seconds:
            if shift >= 0:
                found.append((shift, shift + length))
            shift += self.cycle
        return found


async def publish(plan: Plan, connection: Connection, begin: float) -> list[float]:
    """Send everything. Returns by how many seconds each message was late."""
    pcm = speech.resampled(speech.lengthened(speech.recording(), plan.cycle), plan.rate).pcm()
    size = plan.chunk_frames * _FRAME_BYTES
    pcm += pcm[:size]
    cycle = len(pcm) - size
    starts = [round(plan.phase(n) * plan.rate) * _FRAME_BYTES for n in range(plan.streams)]
    headers = {incoming.SESSION: plan.prefix}
    subjects = [f"{incoming.AUDIO}.{plan.stream(n)}" for n in range(plan.streams)]
    late: list[float] = []
    for number in range(plan.chunks):
        headers[incoming.OFFSET] = str(number * plan.chunk_frames)
        for n, subject in enumerate(subjects):
            due = begin + plan.begin(n) + (number + 1) * plan.chunk_ms / 1000 / plan.speed
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(max(plan.nap, wait))
            elif not len(late) % _TURN:
                await asyncio.sleep(0)
            late.append(time.monotonic() - due)
            at = (starts[n] + number * size) % cycle
            await connection.publish(subject, pcm[at : at + size], headers)
    return late


async def _main() -> None:
    plan = Plan.parse(sys.argv[1])
    connection = Connection(settings.load().broker, name="benchmarks")
    await connection.open()
    begin = time.monotonic() + plan.chunk_ms / 1000
    _say({"begin": begin})
    before = time.process_time()
    late = await publish(plan, connection, begin)
    cpu = time.process_time() - before
    await connection.confirm()
    await connection.close()
    p50, p99, worst = (float(np.percentile(late, p)) for p in (50, 99, 100))
    _say({"messages": len(late), "late": {"p50": p50, "p99": p99, "max": worst}, "cpu": cpu})


def _say(body: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(body) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main())
