"""Producers that do what the wire allows, and what it does not: everything follows from a seed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple, Self

import nats
import nats.js.errors
import numpy as np
from checks import schema
from harness import PATIENCE, STUB, Client, Daemon, check_tiles
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
    client.heard.clear()
    client.raw.clear()
    await _send(seed, client)
    await client.until(lambda body: body["type"] == "ended" and body["session"] == "last", PATIENCE)
    stream = f"fuzz-{seed}"
    for session in {body["session"] for body in client.of("started", stream=stream)}:
        await client.until_type("ended", stream=stream, session=session)
    check_daemon(daemon)
    return check_sessions([body for body in client.heard if body["stream"] == stream])


async def play_stored(seed: int, client: Client, restart: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    """The same in durable mode, where the daemon may be killed at any moment. What is stored is checked."""
    sending = asyncio.create_task(_send(seed, client))
    rng = random.Random(-seed)
    for _ in range(rng.choice([0, 0, 1, 2])):
        await asyncio.sleep(rng.uniform(0, 1))
        await restart()
    await sending
    records: list[dict[str, Any]] = []
    async with asyncio.timeout(2 * PATIENCE):
        while not records or records[-1]["type"] != "ended" or records[-1]["session"] != "last":
            await asyncio.sleep(0.05)
            records += [body async for body in _stored(client, f"fuzz-{seed}", len(records))]
    return check_sessions(records)


async def _send(seed: int, client: Client) -> None:
    """Send a seed's messages, and then a session of its own, called `last`, that ends at once."""
    subject = f"audio.fuzz-{seed}"
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


async def _stored(client: Client, stream: str, skip: int) -> AsyncIterator[dict[str, Any]]:
    """Records of a stream, in the order in which they are stored, without the first ones."""
    jetstream, sequence = client.nats.jetstream(), 1
    with contextlib.suppress(nats.js.errors.NotFoundError):
        for n in itertools.count():
            found = await jetstream.get_msg("TRANSCRIPTS", sequence, f"transcript.{stream}.*", next=True)
            sequence = (found.seq or 0) + 1
            if n >= skip:
                body = json.loads(found.data or b"")
                schema().validate(body)
                yield body


def check_sessions(bodies: list[dict[str, Any]]) -> dict[str, Any]:
    """Every session begins and ends once, and what was published about it covers it; returns the counts of events."""
    begun = [body["session"] for body in bodies if body["type"] == "started"]
    assert len(begun) == len(set(begun)), "a session's name was given out twice"
    ended = [body for body in bodies if body["type"] == "ended"]
    assert sorted(begun) == sorted(body["session"] for body in ended)
    for body in ended:
        check_tiles(bodies, body)
    kinds = [body["type"] for body in bodies]
    return {kind: kinds.count(kind) for kind in set(kinds)}


class Restarting:
    """A daemon around the stub engine that is killed and started again with the same settings."""

    def __init__(self, url: str, settings: dict[str, str]) -> None:
        self._url = url
        self._settings = settings

    async def __aenter__(self) -> Self:
        self.current = await Daemon(self._url, script=STUB, **self._settings).__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.current.__aexit__()

    async def restart(self) -> None:
        check_daemon(self.current)
        await self.current.__aexit__()
        await self.__aenter__()


def check_daemon(daemon: Daemon) -> None:
    assert daemon.process.returncode is None, daemon.stderr
    wrong = [record for record in daemon.records if record["level"] in {"error", "critical"}]
    assert not wrong, wrong
