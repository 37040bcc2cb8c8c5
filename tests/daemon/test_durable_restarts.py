"""Restarted producers in durable mode: every daemon decides alike, and so does a replay."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import jiwer
from chaos import connected, durable, set_up_streams, transcript
from harness import PATIENCE, Daemon, NatsServer, Speech, s16

from transcriber.daemon.shutdown import ExitCode


async def store(url: str, session: str, speech: Speech, event: str | None = None, frames: int | None = None) -> None:
    """Store the recording, or its first frames, in chunks of 100 ms from offset 0. The last one carries the event."""
    headers = {"Audio-Sample-Rate": str(speech.rate), "Audio-Session": session}
    pcm, size = s16(speech.samples[:frames]), speech.rate // 10
    async with connected(url) as client:
        for at in range(0, len(pcm) // 2, size):
            ends = event is not None and at + size >= len(pcm) // 2
            more = {"Audio-Offset": str(at), **({"Audio-Event": str(event)} if ends else {})}
            await client.jetstream().publish("audio.s1", pcm[2 * at : 2 * (at + size)], headers=headers | more)


async def until(url: str, count: int, kind: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while [body["type"] for body in await transcript(url)].count(kind) < count:  # noqa: ASYNC110 - of a server
            await asyncio.sleep(0.1)


async def replayed(url: str) -> list[tuple[object, ...]]:
    environ = os.environ | {"NATS_URL": url, "WHISPER_THREADS": "1", "STREAM_TIMEOUT_SECS": "1"}
    command = [sys.executable, "-m", "transcriber", "replay", "s1", "--format", "json"]
    done = await asyncio.to_thread(subprocess.run, command, env=environ, capture_output=True, check=True)
    return [shape(json.loads(line)) for line in done.stdout.splitlines()]


def shape(body: dict[str, object]) -> tuple[object, ...]:
    """The parts of a record that every daemon writes alike: no session name and no checkpoint."""
    fields = ("start", "text", "reason", *(("received", "silent") if body["type"] == "ended" else ()))
    return body["type"], *(body.get(name) for name in fields)


async def test_restarts_are_decided_alike_by_every_daemon_and_replay(server: NatsServer, heldout: Speech) -> None:
    """Audio and message times decide, not when the daemon came (P-15, P-28)."""
    await set_up_streams(server.url)
    one, two = heldout.cut(4, 5), heldout.cut(21, 22)
    async with Daemon(server.url, **durable(STREAM_TIMEOUT_SECS="1")) as daemon:
        await store(server.url, "x", one, "flush")
        await until(server.url, 1, "final")
        assert await daemon.stop() == ExitCode.CLEAN
    await asyncio.sleep(1)  # of the producer, in the messages' own time
    await store(server.url, "x", one)  # the same again, from offset 0: while nobody is there
    await store(server.url, "x", two)  # at once: nothing but its bytes tells
    await store(server.url, "y", one)
    await store(server.url, "x", two, frames=two.rate // 5)
    await store(server.url, "y", one, frames=two.rate // 5)  # sent twice
    await store(server.url, "y", two, "end")
    async with Daemon(server.url, **durable(STREAM_TIMEOUT_SECS="1")) as daemon:
        await until(server.url, 5, "ended")
        assert await daemon.stop() == ExitCode.CLEAN
        assert sum(record["message"] == "overlapping audio trimmed" for record in daemon.records) == 1
    told = [body for body in await transcript(server.url) if body["type"] != "silence"]
    assert [body["reason"] for body in told if body["type"] == "rejected"] == ["superseded"] * 2
    texts = " ".join(body["text"] for body in told if body["type"] == "final")
    assert jiwer.wer(f"{one.words} {one.words} {two.words} {one.words} {two.words}", texts) <= 0.1
    assert await replayed(server.url) == [shape(body) for body in told]
