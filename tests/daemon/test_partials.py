"""Text while somebody is still speaking: real model, real server, real time."""

from __future__ import annotations

import asyncio
import time

import pytest
from harness import QUICK, STUB, Client, Daemon, NatsServer, Speech, s16

RATE = 16_000


async def speak(client: Client, speech: Speech, *, stream: str = "s1", pace: float = 1.0) -> None:
    """Publish in chunks of 100 ms at `pace` times real time, then end the session."""
    pcm, begin = s16(speech.samples), time.monotonic()
    for start in range(0, len(pcm), 3200):
        await asyncio.sleep(max(0.0, begin + start / 2 / RATE / pace - time.monotonic()))
        await client.send(
            pcm[start : start + 3200], subject=f"audio.{stream}", audio_session="x", audio_offset=start // 2
        )
    await client.send(subject=f"audio.{stream}", audio_session="x", audio_event="end")


@pytest.fixture
def longest(heldout: Speech) -> Speech:
    """The utterance with most time to speak in that still fits a window."""
    lengths = [row["end"] - row["start"] if row["end"] - row["start"] < 4.3 else 0 for row in heldout.rows]
    first = lengths.index(max(lengths))
    return heldout.cut(first, first + 1)


async def test_partials_come_while_somebody_speaks(nats_server: NatsServer, client: Client, longest: Speech) -> None:
    """About one a second comes for the open window, all before its final. Stable words stay."""
    async with Daemon(nats_server.url, AUDIO_SAMPLE_RATE=str(RATE), **QUICK) as daemon:
        await speak(client, longest)
        await client.until_type("ended")
        assert await daemon.stop() == 0
    kinds = [body["type"] for body in client.of("partial", "final")]
    assert kinds[-1] == "final"
    assert kinds[:-1] == ["partial"] * len(kinds[:-1])
    partials, (final,) = client.of("partial"), client.of("final")
    assert len(partials) >= 2
    stable: list[str] = []
    for before, body in zip([None, *partials], partials, strict=False):
        assert (body["sequence"], body["start"]) == (final["sequence"], final["start"])
        assert before is None or body["end"] >= before["end"] + 1
        words = body["stable"].split()
        assert words[: len(stable)] == stable
        assert body["text"].startswith(body["stable"])
        stable = words
    assert stable
    assert final["text"].split()[: len(stable)] == stable


async def test_partials_can_be_switched_off(nats_server: NatsServer, client: Client, longest: Speech) -> None:
    """PARTIAL_INTERVAL_SECS=0 does that."""
    off = {"PARTIAL_INTERVAL_SECS": "0", "AUDIO_SAMPLE_RATE": str(RATE)}
    async with Daemon(nats_server.url, **off, **QUICK) as daemon:
        await speak(client, longest, pace=4)
        await client.until_type("ended")
        assert await daemon.stop() == 0
    assert client.of("final")
    assert not client.of("partial")


async def test_busy_worker_makes_no_partials(nats_server: NatsServer, client: Client, longest: Speech) -> None:
    """While finals wait, open windows are not decoded."""
    slow = {"STUB_SECS": "0.5", "STUB_WARM_SECS": "0.01", "WHISPER_RTF": "0.1", "AUDIO_SAMPLE_RATE": str(RATE)}
    async with Daemon(nats_server.url, script=STUB, **slow) as daemon:
        for n in range(16):  # 8 s of work, while the quiet stream speaks for 4
            await client.send(s16(longest.samples), subject=f"audio.busy{n}", audio_event="end")
        await speak(client, longest, stream="quiet")
        assert not client.of("partial", stream="quiet")
        await client.until_type("ended", stream="quiet")
        assert await daemon.stop() == 0
