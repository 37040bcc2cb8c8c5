"""A producer that keeps on until JetStream has everything, and what must hold for the transcripts afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import nats
import nats.errors
import nats.js.errors
from checks import schema
from harness import IDENTITY, NatsServer, Speech, free_port, s16

from transcriber.broker.connection import Connection
from transcriber.broker.options import BrokerOptions
from transcriber.broker.setup import Storage, set_up
from transcriber.domain.timeline import SAMPLE_RATE

_AWAY = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)


def jetstream_server(folder: Path, config: str = "") -> NatsServer:
    return NatsServer(folder / "nats", "-js", "-sd", str(folder / "jetstream"), config=config)


async def set_up_streams(url: str, storage: Storage | None = None) -> None:
    connection = Connection(BrokerOptions(url=url, creds=IDENTITY.get("user_credentials", "")))
    await connection.open()
    await set_up(connection, storage or Storage())
    await connection.close()


def durable(**environ: str) -> dict[str, str]:
    """Settings of a daemon that goes on at once after a crash: its name is its host and port."""
    return {"AUDIO_SOURCE": "jetstream", "HEALTH_PORT": str(free_port()), "WHISPER_RTF": "0.05"} | environ


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[nats.NATS]:
    async def ignore(_error: Exception) -> None: ...

    client = await nats.connect(
        url.split(","), max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=ignore, **IDENTITY
    )
    try:
        yield client
    finally:
        await client.close()


async def publish(  # noqa: PLR0913 - each has its default
    url: str,
    speech: Speech,
    stream: str = "s1",
    *,
    session: str | None = "x",
    pace: float = 0.0,
    begin: int = 0,
    end: bool = True,
) -> None:
    """Store the recording in chunks of 100 ms, each sent until it is acknowledged.

    `pace`: seconds between two; `begin`: the first chunk.
    """
    run = session or uuid4().hex
    size = speech.rate // 10
    async with connected(url) as client:
        jetstream = client.jetstream(timeout=1)
        pcm = s16(speech.samples)
        for offset in range(begin * size, len(speech.samples), size):
            last = offset + size >= len(speech.samples)
            headers = {
                "Audio-Sample-Rate": str(speech.rate),
                "Nats-Msg-Id": f"{stream}/{run}/{offset}",
                **({"Audio-Session": session, "Audio-Offset": str(offset)} if session else {}),
                **({"Audio-Event": "end"} if last and end else {}),
            }
            while True:
                with contextlib.suppress(*_AWAY):
                    payload = pcm[2 * offset : 2 * (offset + size)]
                    await jetstream.publish(f"audio.{stream}", payload, headers=dict(headers))
                    break
                await asyncio.sleep(0.1)
            await asyncio.sleep(pace)


def everything(speech: Speech) -> int:
    """Samples at 16 kHz of the recording."""
    return round(len(speech.samples) * SAMPLE_RATE / speech.rate)


async def transcript(url: str, stream: str | None = "s1") -> list[dict[str, Any]]:
    """Every record of a stream, or of all, in the order in which they are stored."""
    async with connected(url) as client:
        jetstream = client.jetstream()
        count = (await jetstream.stream_info("TRANSCRIPTS")).state.last_seq
        found = []
        for sequence in range(1, count + 1):
            message = await jetstream.get_msg("TRANSCRIPTS", sequence)
            body = json.loads(message.data or b"")
            schema().validate(body)
            if stream in {None, body["stream"]}:
                found.append(body)
        return found


async def until_ended(url: str, stream: str = "s1", patience: float = 60.0) -> list[dict[str, Any]]:
    """Wait until the stream's session has ended; returns its records."""
    async with connected(url) as client, asyncio.timeout(patience):
        jetstream = client.jetstream(timeout=1)
        while True:
            with contextlib.suppress(*_AWAY):
                last = await jetstream.get_last_msg("TRANSCRIPTS", f"transcript.{stream}.*")
                if json.loads(last.data or b"")["type"] == "ended":
                    break
            await asyncio.sleep(0.1)
    return await transcript(url, stream)


@dataclass(frozen=True, slots=True)
class Covered:
    """Samples of a session: heard at all, in no record or silence, in two of them; and in gaps."""

    received: int
    lost: int
    doubled: int
    text: str
    gaps: int = 0


def covered(records: list[dict[str, Any]]) -> Covered:
    """Follow one session's records: in order, each beginning at or after the end of the last."""
    position = doubled = 0
    text: list[str] = []
    previous = 0
    for body in records:
        assert body["next_seq"] >= previous, f"the audio stream is read backwards: {body}"
        previous = body["next_seq"]
        if body["type"] in {"final", "gap", "silence"}:
            start, end = (round(body[bound] * SAMPLE_RATE) for bound in ("start", "end"))
            doubled += max(0, position - start)
            position = max(position, end)
        if body["type"] == "final" and body["text"]:
            text.append(body["text"])
        fates = {k: round(body[k] * SAMPLE_RATE) for k in ("received", "transcribed", "silent")}
        gaps = sum(round(seconds * SAMPLE_RATE) for seconds in body["gap"].values())
        assert fates["received"] == fates["transcribed"] + fates["silent"] + gaps
    ended = records[-1]
    assert ended["type"] == "ended"
    assert [b["type"] for b in records].count("ended") == 1
    received = round(ended["received"] * SAMPLE_RATE)
    spoken = sum(
        round(b["end"] * SAMPLE_RATE) - round(b["start"] * SAMPLE_RATE) for b in records if b["type"] == "final"
    )
    lost = round(ended["transcribed"] * SAMPLE_RATE) - spoken
    gaps = round(sum(ended["gap"].values()) * SAMPLE_RATE)
    return Covered(received, lost, doubled, " ".join(text), gaps)
