"""Producers that do what the wire allows, and what it does not: everything follows from a seed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import nats
import numpy as np
from harness import PATIENCE, Client, Daemon, check_tiles
from nats.errors import Error as NatsError

_BURSTS = np.repeat([1, 0] * 20, 11_200)
_NOISE = (np.random.default_rng(7).integers(-9000, 9000, len(_BURSTS)) * _BURSTS).astype("<i2").tobytes()
FORMATS = [
    ("pcm_s16le", 16_000, 1, 2),
    ("pcm_s16le", 48_000, 2, 4),
    ("pcm_f32le", 44_100, 1, 4),
    ("pcm_mulaw", 8000, 1, 1),
]
HOSTILE = ["", " ", "-1", "0", "1e9", "9" * 15, "9" * 16, "NaN", "pcm_s16le", "end", "x" * 200, "ä", "١٦٠٠٠", "a\tb"]
NAMES = ["Audio-Encoding", "Audio-Sample-Rate", "Audio-Channels", "Audio-Session", "Audio-Offset", "Audio-Language"]
NAMES += ["Audio-Tenant", "Audio-Event", "traceparent", "Audio-Sesion", "audio_offset", "X-Audio-Rate"]
FILES = [
    b"OggS\0\2" + bytes(60),
    b"\x1aE\xdf\xa3\x9fB\x86\x81\1B\xf7\x81\1B\x82\x84webm" + bytes(80),
    b"\0\0\0\x1cftypM4A " + bytes(80),
    b"RIFF\x2e\0\0\0WAVEfmt \x10\0\0\0\1\0\2\0\x80\x3e\0\0\0\xfa\0\0\4\0\x10\0data\x08\0\0\0abcdefgh",
    b"RIFF\x2e\0\0\0WAVEfmt \x10\0\0\0",
    b'{"audio": "UklGRiQAAABXQVZF"}',
]


class Step(NamedTuple):
    """One message, or a pause, or a connection that is made again."""

    payload: bytes = b""
    headers: dict[str, str] | None = None
    pause: float = 0.0
    reconnect: bool = False


class _Producer:
    def __init__(self, rng: random.Random, number: int) -> None:
        self._rng = rng
        self._session = rng.choice([None, "shared", f"own-{number}"])
        self._counts = rng.random() < 0.8
        self._casing = rng.choice([str, str, str.lower, str.upper])
        self._begin()

    def _begin(self) -> None:
        self._format = self._rng.choice(FORMATS)
        self._offset = self._rng.choice([0, 0, 0, self._rng.randrange(10**6), 10**14])
        self._shift = self._rng.randrange(100_000)

    def step(self) -> Step:
        rng = self._rng
        kind = rng.choices(["audio", "event", "back", "jump", "begin", "hostile", "file"], [60, 8, 8, 6, 4, 8, 2])[0]
        if kind == "begin":
            self._begin()
        if kind == "back":
            self._offset = max(0, self._offset - rng.randrange(60_000))
        if kind == "jump":
            self._offset += rng.choice([1, 100, 10_000, 10**6, 10**9])
        frames = rng.choice([1, 160, 960, 1601, 8000, 40_000])
        headers, payload = self._headers(), self._audio(frames)
        if kind == "event":
            headers["Audio-Event"] = rng.choice(["flush", "keepalive", "end"])
            payload = payload if rng.random() < 0.3 else b""
        if kind == "hostile":
            headers[rng.choice(NAMES)] = rng.choice(HOSTILE)
            payload = rng.choice([payload, b"", payload[:-1], rng.randbytes(rng.randrange(300))])
        if kind == "file":
            payload = rng.choice(FILES)
        self._offset += len(payload) // self._format[3]
        return Step(payload, {self._casing(name): value for name, value in headers.items()})

    def _audio(self, frames: int) -> bytes:
        size = self._format[3]
        begin = (self._offset + self._shift) * size % (len(_NOISE) // 2 // size * size)
        return _NOISE[begin : begin + frames * size]

    def _headers(self) -> dict[str, str]:
        encoding, rate, channels, _ = self._format
        headers = {"Audio-Encoding": encoding, "Audio-Sample-Rate": str(rate), "Audio-Channels": str(channels)}
        if self._session is not None:
            headers["Audio-Session"] = self._session
        if self._counts:
            headers["Audio-Offset"] = str(self._offset)
        if self._rng.random() < 0.05:
            del headers[self._rng.choice(list(headers))]
        return headers


def plan(seed: int) -> Iterator[Step]:
    """The actions of one to three producers of one stream."""
    rng = random.Random(seed)
    producers = [_Producer(rng, number) for number in range(rng.randint(1, 3))]
    for _ in range(rng.randint(1, 60)):
        yield rng.choice(producers).step()
        if rng.random() < 0.1:
            yield Step(pause=rng.choice([0.01, 0.1, 0.6, 1.1]))
        if rng.random() < 0.02:
            yield Step(reconnect=True)


async def play(seed: int, client: Client, daemon: Daemon) -> dict[str, Any]:
    """Send a seed's messages, wait until every session has ended, check every account; returns the counts of events."""
    stream, subject = f"fuzz-{seed}", f"audio.fuzz-{seed}"
    client.heard.clear()
    client.raw.clear()
    producer = await nats.connect(client.url)
    for step in plan(seed):
        if step.reconnect:
            await producer.drain()
            producer = await nats.connect(client.url)
        elif step.pause:
            await asyncio.sleep(step.pause)
        else:
            with contextlib.suppress(NatsError, ValueError):  # what the client itself will not send
                await producer.publish(subject, step.payload, headers=step.headers)
    await producer.drain()
    await client.send(bytes(3200), subject=subject, audio_session="last", audio_event="end", audio_sample_rate=16_000)
    await client.until(lambda body: body["type"] == "ended" and body["session"] == "last", PATIENCE)
    begun = {body["session"] for body in client.of("started", stream=stream)}
    assert len(begun) == len(client.of("started", stream=stream)), "a session's name was given out twice"
    for session in begun:
        ended = await client.until_type("ended", stream=stream, session=session)
        check_tiles(client.heard, ended)
    assert daemon.process.returncode is None, daemon.stderr
    wrong = [record for record in daemon.records if record["level"] in {"ERROR", "CRITICAL"}]
    assert not wrong
    kinds = [body["type"] for body in client.heard if body["stream"] == stream]
    return {kind: kinds.count(kind) for kind in set(kinds)}
