"""A producer's flush is answered, and it is told when somebody speaks, through the real server and model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from chaos import connected, durable, set_up_streams, transcript
from harness import PATIENCE, QUICK, Client, Daemon, NatsServer, Speech, check_tiles, s16

from transcriber.daemon.shutdown import ExitCode

RATE = 16_000
PLAIN = {"audio_sample_rate": str(RATE), "audio_session": "run"}


@pytest.fixture
async def daemon(nats_server: NatsServer, client: Client) -> AsyncIterator[Daemon]:
    async with Daemon(nats_server.url, **QUICK) as running:
        yield running
        assert await running.stop() == ExitCode.CLEAN


@pytest.mark.usefixtures("daemon")
async def test_flushes_are_answered_in_order(client: Client, heldout: Speech) -> None:
    """After the words before them, over silence, twice at one place, and without a session."""
    one, two = heldout.cut(4, 5), heldout.cut(21, 22)
    await client.send(**PLAIN, audio_event="flush")
    await client.send(s16(one.samples), **PLAIN)
    await client.send(**PLAIN, audio_event="flush")
    await client.send(bytes(RATE), **PLAIN, audio_event="flush")
    await client.send(**PLAIN, audio_event="flush")
    await client.send(s16(two.samples), **PLAIN, audio_event="flush")
    await client.send(**PLAIN, audio_event="end")
    ended = await client.until_type("ended")
    check_tiles(client.heard, ended)
    heard = client.of("flushed", "final", "ended")
    assert [body["type"] for body in heard] == ["flushed", "final", *["flushed"] * 3, "final", "flushed", "ended"]
    samples = [round(body["end"] * RATE) for body in client.of("flushed")]
    first, quiet = len(one.samples), len(one.samples) + RATE // 2
    assert samples == [0, first, quiet, quiet, quiet + len(two.samples)]
    assert [body["closed"] for body in client.of("final")] == ["flush", "flush"]
    assert client.text() == f"{one.words} {two.words}"


@pytest.mark.usefixtures("daemon")
async def test_speech_is_told_before_its_text(client: Client, heldout: Speech) -> None:
    """Each window opens before it closes, and closes before its final. Who does not ask hears nothing of it."""
    pcm = s16(heldout.samples[: 12 * RATE])
    for subject, more in (("audio.s1", {"audio_notify": "speech"}), ("audio.s2", {})):
        for at in range(0, len(pcm), 3200):
            await client.send(pcm[at : at + 3200], subject=subject, **PLAIN, **(more if not at else {}))
        await client.send(subject=subject, **PLAIN, audio_event="end")
    await client.until_count(2, "ended")
    finals, told = client.of("final", stream="s1"), client.of("speech", stream="s1")
    assert [(b["start"], b.get("end"), b.get("closed")) for b in told] == [
        event
        for final in finals
        for event in ((final["start"], None, None), (final["start"], final["end"], final["closed"]))
    ]
    assert len(finals) > 1
    for final in finals:
        closed = next(b for b in told if b.get("end") == final["end"])
        assert client.heard.index(closed) < client.heard.index(final)
    assert client.of("speech", stream="s2") == []


async def test_stored_flush_is_answered_once_over_a_restart(server: NatsServer, heldout: Speech) -> None:
    """In its place in the transcript. Speech events come beside it, and are not stored."""
    speech = heldout.cut(4, 5)
    await set_up_streams(server.url)

    async def store(payload: bytes, event: str | None = None) -> None:
        headers = {"Audio-Sample-Rate": str(RATE), "Audio-Session": "run", "Audio-Notify": "speech"}
        more = {} if event is None else {"Audio-Event": event}
        async with connected(server.url) as client:
            await client.jetstream().publish("audio.s1", payload, headers=headers | more)

    async def until(count: int, kind: str) -> list[str]:
        async with asyncio.timeout(PATIENCE):
            while (kinds := [b["type"] for b in await transcript(server.url)]).count(kind) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        return kinds

    async with Client(server.url) as client:
        async with Daemon(server.url, **durable()) as daemon:
            await store(s16(speech.samples))
            await store(b"", "flush")
            await until(1, "flushed")
            assert await daemon.stop() == ExitCode.CLEAN
        await store(s16(speech.samples), "flush")
        await store(b"", "flush")
        await store(b"", "end")
        async with Daemon(server.url, **durable()):
            kinds = await until(1, "ended")
        told = client.of("speech")
    assert kinds == ["started", "final", "flushed", "final", "flushed", "flushed", "ended"]
    ends = [round(b["end"] * RATE) for b in await transcript(server.url) if b["type"] == "flushed"]
    assert ends == [len(speech.samples), 2 * len(speech.samples), 2 * len(speech.samples)]
    assert [("end" in body) for body in told] == [False, True, False, True]
