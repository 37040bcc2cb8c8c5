"""Compares a backlog in JetStream with the same audio live, and times the restart of a killed daemon."""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from benchmarks import speech
from benchmarks.machine import free_port
from benchmarks.report import Report, table
from benchmarks.rig import ALL_OF_IT, Log, environ_for
from transcriber.broker.connection import Connection
from transcriber.broker.setup import Storage, set_up
from transcriber.cli.programs import find_server, run_daemon, run_server, unless_ended
from transcriber.client.listener import Listener
from transcriber.domain.timeline import SAMPLE_RATE
from transcriber.protocol import incoming
from transcriber.settings import load

_CHUNK_SECS = 0.1
_UNDER_WAY = 64  # messages between two checks of what the server has stored
MEASURED = {
    "audio": "the bundled recording's utterances one after the other at 16 kHz, on one stream, as fast as possible",
    "durable": "all audio is stored before; from when the daemon is ready to when the last record is stored",
    "live": "the same daemon on live audio, with room for all of it; from the first chunk to the last result",
    "engine": "sum of the results' processing times; in the rest of the time the engine waits for work",
    "resumed": "SIGKILL during a backlog; from the start of the next daemon to the first record that it stores",
}


@dataclass(frozen=True, slots=True)
class _Pass:
    """Seconds of wall time, and engine seconds in them."""

    wall: float
    engine: float


async def run(options: argparse.Namespace) -> Report:
    """Measure live first, then the backlog."""
    environ = environ_for(None, PARTIAL_INTERVAL_SECS="0", WHISPER_RTF="0.05", **ALL_OF_IT, **options.whisper)
    settings = load(environ)
    pcm = _pcm(options.seconds)
    audio = len(pcm) / 2 / SAMPLE_RATE
    chosen = {
        "model": settings.whisper.path.name.removesuffix(".bin"),
        "threads": settings.whisper.threads,
        "audio_seconds": audio,
    }
    report = Report(benchmark="durable", settings=chosen, measured=MEASURED)
    passes: dict[str, _Pass] = {}
    with tempfile.TemporaryDirectory(prefix="transcriber-benchmarks-") as folder:
        async with run_server(find_server(), Path(folder), jetstream=True) as (url, server):
            at = environ | {"NATS_URL": url}
            for name, work in (("live", _live), ("durable", _durable)):
                passes[name] = await unless_ended(work(at, pcm), server)
            resumed = await unless_ended(_resumed(at, pcm), server)
    report.figures = {name: {"wall": p.wall, "engine": p.engine} for name, p in passes.items()}
    report.figures["resumed"] = {"seconds": resumed}
    report.ratios = {
        "durable_over_live_throughput": passes["live"].wall / passes["durable"].wall,
        **{f"engine_busy_{name}": p.engine / p.wall for name, p in passes.items()},
    }
    rows = [(n, f"{p.wall:.2f}", f"{p.engine:.2f}", f"{audio / p.wall:.1f}") for n, p in passes.items()]
    report.tables = [table(("source", "seconds", "in the engine", "x real time"), rows)]
    report.notes.append(f"killed and started again: the next record is stored {resumed:.2f} s later")
    return report


def _pcm(seconds: float) -> bytes:
    heard = speech.at_16k(speech.speech_alone(seconds))
    return (heard * 32767).astype("<i2").tobytes()


async def _live(environ: Mapping[str, str], pcm: bytes) -> _Pass:
    stream = f"bench-{uuid4().hex[:8]}"
    async with run_daemon(environ, on_record=Log().add), _connected(environ) as connection:
        ear = _Ear(connection, stream)
        await ear.start()
        began = time.monotonic()
        await _publish(connection, stream, pcm)
        return await ear.until_ended(began)


async def _durable(environ: Mapping[str, str], pcm: bytes) -> _Pass:
    stream = f"bench-{uuid4().hex[:8]}"
    async with _connected(environ) as connection:
        await set_up(connection, Storage())
        await _publish(connection, stream, pcm)
        ear = _Ear(connection, stream)
        await ear.start()
        async with run_daemon({**environ, "AUDIO_SOURCE": "jetstream"}, on_record=Log().add):
            return await ear.until_ended(time.monotonic())


async def _resumed(environ: Mapping[str, str], pcm: bytes) -> float:
    """Seconds from a daemon's start to its first record, when the last daemon was killed at work."""
    stream = f"bench-{uuid4().hex[:8]}"
    # A lease names the daemon's host and port, so a restarted daemon need not wait until its own lease expires.
    again = {**environ, "AUDIO_SOURCE": "jetstream", "HEALTH_PORT": str(free_port())}
    async with _connected(environ) as connection:
        await _publish(connection, stream, pcm)
        ear = _Ear(connection, stream)
        await ear.start()
        async with run_daemon(again, on_record=Log().add) as (_, daemon):
            await ear.until_final()
            os.kill(daemon.pid, signal.SIGKILL)
        ear = _Ear(connection, stream)
        await ear.start()
        began = time.monotonic()
        async with run_daemon(again, on_record=Log().add):
            await ear.until_final()
            return time.monotonic() - began


async def _publish(connection: Connection, stream: str, pcm: bytes) -> None:
    """Publish everything at once. The last chunk ends the session."""
    size = 2 * round(SAMPLE_RATE * _CHUNK_SECS)
    for count, at in enumerate(range(0, len(pcm), size)):
        headers = {incoming.SESSION: stream, incoming.RATE: str(SAMPLE_RATE), incoming.OFFSET: str(at // 2)}
        if at + size >= len(pcm):
            headers[incoming.EVENT] = "end"
        await connection.publish(f"{incoming.AUDIO}.{stream}", pcm[at : at + size], headers)
        if count % _UNDER_WAY == 0:
            await connection.confirm()
    await connection.confirm()


@asynccontextmanager
async def _connected(environ: Mapping[str, str]) -> AsyncIterator[Connection]:
    connection = Connection(load(environ).broker, name="benchmarks")
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


class _Ear:
    """Follows one stream until its session ends."""

    def __init__(self, connection: Connection, stream: str) -> None:
        self._listener = Listener(connection, stream)

    async def start(self) -> None:
        await self._listener.start()

    async def until_final(self) -> None:
        async for body in self._listener.messages():
            if body["type"] == "final":
                return

    async def until_ended(self, began: float) -> _Pass:
        """Wait for the end. The wall time counts from `began`."""
        engine = 0.0
        async for body in self._listener.messages():
            if body["type"] == "final":
                engine += body["latency"]["processing"]
            elif body["type"] == "ended":
                break
        return _Pass(time.monotonic() - began, engine)
