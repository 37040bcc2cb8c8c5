"""Sessions through the real server: events, timeouts, offsets and formats, each on recorded speech."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from harness import QUICK, Client, Daemon, NatsServer, Speech, check_tiles, s16

SAMPLES = 16_000  # a second of the recordings, and of every timeline


@pytest.fixture
def first(heldout: Speech) -> Speech:
    return heldout.cut(4, 5)


@pytest.fixture
def second(heldout: Speech) -> Speech:
    return heldout.cut(21, 22)


@pytest.fixture
async def daemon(nats_server: NatsServer, client: Client) -> Any:
    async with Daemon(nats_server.url, AUDIO_SAMPLE_RATE=str(SAMPLES), **QUICK) as running:
        yield running
        assert await running.stop() == 0
        assert running.stderr == ""


async def send(client: Client, speech: Speech, offset: int | None = None, **headers: str | int) -> int:
    """Publish speech in chunks of 100 ms, from `offset` if it is given. Returns the offset after it."""
    pcm = s16(speech.samples)
    for start in range(0, len(pcm), 3200):
        where = {} if offset is None else {"audio_offset": offset + start // 2}
        await client.send(pcm[start : start + 3200], **where, **headers)
    return (offset or 0) + len(speech.samples)


def bounds(body: dict[str, Any]) -> tuple[int, int]:
    return round(body["start"] * SAMPLES), round(body["end"] * SAMPLES)


@pytest.mark.usefixtures("daemon")
async def test_flush_closes_the_window_and_end_the_session_once(client: Client, first: Speech, second: Speech) -> None:
    """Events act once, with or without audio. Chunks for an ended session open `<session>.2`."""
    await send(client, first, audio_session="run")
    await client.send(audio_session="run", audio_event="flush")
    assert (await client.until_type("final"))["text"] == first.words
    assert not client.of("ended")
    await client.send(audio_session="run", audio_event="keepalive")
    await client.send(s16(second.samples), audio_session="run", audio_event="end")
    ended = await client.until_type("ended", session="run")
    assert client.text() == f"{first.words} {second.words}"
    assert bounds(client.of("final")[-1])[1] <= len(first.samples) + len(second.samples)
    check_tiles(client.heard, ended)

    for event in ("end", "flush", "keepalive", "end"):
        await client.send(audio_session="run", audio_event=event)
    await client.send(s16(first.samples), audio_session="run", audio_event="end")
    again = await client.until_type("ended", session="run.2")
    check_tiles(client.heard, again)
    assert [(b["type"], b["session"]) for b in client.of("started", "ended", "rejected")] == [
        ("started", "run"),
        ("ended", "run"),
        ("started", "run.2"),
        ("ended", "run.2"),
    ]


@pytest.mark.usefixtures("daemon")
async def test_no_session_id_is_given_out_twice(client: Client, first: Speech) -> None:
    """A producer may choose a name that the daemon gave out before. In no order are two sessions mixed up."""
    await client.send(s16(first.samples), audio_event="end")
    generated = (await client.until_type("started"))["session"]
    for session in ("run", "run", "run.2", "run", "a.2", "a", "a", generated, generated):
        await client.send(s16(first.samples), audio_session=session, audio_event="end")
    ends = await client.until_count(10, "ended")
    given = [ended["session"] for ended in ends]
    assert given[1:8] == ["run", "run.2", "run.2.2", "run.3", "a.2", "a", "a.3"]
    assert len(set(given)) == 10
    for ended in ends:
        check_tiles(client.heard, ended)
        assert [b["text"] for b in client.of("final") if b["session"] == ended["session"]] == [first.words]


async def test_quiet_stream_loses_its_window_and_later_its_session(
    nats_server: NatsServer, client: Client, first: Speech, second: Speech
) -> None:
    """STREAM_TIMEOUT_SECS closes the window and keeps the session. SESSION_TIMEOUT_SECS ends it, once."""
    timeouts = {"STREAM_TIMEOUT_SECS": "0.2", "SESSION_TIMEOUT_SECS": "2.5", "AUDIO_SAMPLE_RATE": "16000"}
    async with Daemon(nats_server.url, **timeouts, **QUICK) as daemon:
        offset = await send(client, first, 0, audio_session="run")
        assert (await client.until_type("final"))["text"] == first.words
        assert not client.of("ended")
        await send(client, second, offset, audio_session="run")
        ended = await client.until_type("ended")
        assert await daemon.stop() == 0
    check_tiles(client.heard, ended)
    assert client.text() == f"{first.words} {second.words}"
    assert len(client.of("started", "ended")) == 2


@pytest.mark.usefixtures("daemon")
async def test_offsets_place_audio_on_the_timeline(client: Client, first: Speech, second: Speech) -> None:
    """Repeated and overlapping chunks count once. A second that never came is a gap with exactly its bounds."""
    await send(client, first, 0, audio_session="run")
    tail = first.samples[-1600:]
    await client.send(s16(tail), audio_session="run", audio_offset=len(first.samples) - 1600)
    both = np.concatenate([tail, second.samples[:1600]])
    await client.send(s16(both), audio_session="run", audio_offset=len(first.samples) - 1600)
    rest = Speech(second.samples[1600:], SAMPLES, second.rows)
    middle = await send(client, rest, len(first.samples) + 1600, audio_session="run")
    end = await send(client, first, middle + SAMPLES, audio_session="run")
    await client.send(audio_session="run", audio_event="end")

    ended = await client.until_type("ended")
    assert bounds(await client.until_type("gap")) == (middle, middle + SAMPLES)
    assert client.of("gap")[0]["reason"] == "lost_upstream"
    assert client.text() == f"{first.words} {second.words} {first.words}"
    assert round(ended["received"] * SAMPLES) == end
    check_tiles(client.heard, ended)


@pytest.mark.usefixtures("daemon")
async def test_hole_is_undecodable_if_chunks_were_rejected_else_lost(client: Client, first: Speech) -> None:
    """The gap's reason tells the producer's own mistake from a loss on the way."""
    here = {"audio_session": "run"}
    broken = await send(client, first, 0, **here)
    await client.send(b"\0" * 3201, audio_offset=broken, **here)
    lost = await send(client, first, broken + 1600, **here)
    await send(client, first, lost + 1600, **here)
    await client.send(audio_event="end", **here)
    ended = await client.until_type("ended")
    gaps = [(*bounds(g), g["reason"]) for g in client.of("gap")]
    assert gaps == [(broken, broken + 1600, "undecodable"), (lost, lost + 1600, "lost_upstream")]
    assert client.text() == " ".join([first.words] * 3)
    assert len(client.of("rejected")) == 1
    check_tiles(client.heard, ended)


@pytest.mark.usefixtures("daemon")
async def test_a_start_more_than_ten_seconds_behind_opens_a_session(
    client: Client, first: Speech, second: Speech
) -> None:
    """Ten seconds before the head, in a hole, is an overlap. One sample more is a restart. Offsets may be huge."""
    origin = 10**15 - 36 * SAMPLES  # an offset has at most 15 digits
    await send(client, first, origin, audio_session="run")
    head = origin + 12 * SAMPLES
    await client.send(s16(second.samples), audio_session="run", audio_offset=head)
    behind = head + len(second.samples) - 10 * SAMPLES
    await client.send(s16(first.samples[:1600]), audio_session="run", audio_offset=behind)
    await client.send(s16(first.samples), audio_session="run", audio_offset=behind - 1)
    await client.send(audio_session="run", audio_event="end")
    await client.until_count(2, "ended")
    assert not client.of("rejected")
    assert len(client.of("gap")) == 1
    old, new = client.of("ended")
    assert (old["session"], new["session"] != "run") == ("run", True)
    for ended in (old, new):
        check_tiles(client.heard, ended)
    assert [b["text"] for b in client.of("final")] == [first.words, second.words, first.words]


@pytest.mark.usefixtures("daemon")
async def test_a_producer_that_begins_again_is_heard_each_time(client: Client, first: Speech, second: Speech) -> None:
    """Three utterances from offset 0 in one session, without a pause, make three sessions with every word."""
    for speech in (first, second, first):
        await send(client, speech, 0, audio_session="run")
    await client.send(audio_session="run", audio_event="end")
    await client.until_count(3, "ended")
    assert not client.of("rejected", "gap")
    assert [b["text"] for b in client.of("final")] == [first.words, second.words, first.words]
    for ended in client.of("ended"):
        check_tiles(client.heard, ended)


async def test_keepalives_hold_no_words_back(nats_server: NatsServer, client: Client, first: Speech) -> None:
    """The last words come although the producer goes on sending keepalives."""
    shape = {"audio_session": "run", "audio_sample_rate": SAMPLES}
    spoken = s16(first.samples)[: -SAMPLES // 2]  # no pause at its end that would close the window
    async with Daemon(nats_server.url, **QUICK | {"STREAM_TIMEOUT_SECS": "1"}) as daemon:
        await client.send(spoken, **shape)
        telling = asyncio.create_task(client.until_type("final"))
        while not telling.done():
            await client.send(audio_event="keepalive", audio_session="run")  # at another rate, by default
            await asyncio.wait({telling}, timeout=0.2)
        await client.send(audio_session="run", audio_event="end")
        ended = await client.until_type("ended")
        assert await daemon.stop() == 0
    assert round(ended["received"] * SAMPLES) == len(spoken) // 2
    check_tiles(client.heard, ended)


@pytest.mark.usefixtures("daemon")
async def test_a_jump_of_more_than_an_hour_is_rejected(client: Client, first: Speech, second: Speech) -> None:
    """A jump of 3600 s leaves a hole like any other.

    One sample more is rejected, and the stream goes on where it was.
    """
    head = await send(client, first, 0, audio_session="run")
    await client.send(s16(first.samples), audio_session="run", audio_offset=head + 3600 * SAMPLES + 1)
    rejected = await client.until_type("rejected")
    assert rejected["reason"] == "offset"
    assert f"Audio-Offset={head + 3600 * SAMPLES + 1}" in rejected["detail"]
    assert "3600" in rejected["detail"]
    await client.send(s16(second.samples), audio_session="run", audio_offset=head + 3600 * SAMPLES, audio_event="end")
    ended = await client.until_type("ended")
    assert bounds(client.of("gap")[0]) == (head, head + 3600 * SAMPLES)
    assert client.text() == f"{first.words} {second.words}"
    check_tiles(client.heard, ended)


@pytest.mark.usefixtures("daemon")
async def test_a_format_change_in_mid_session_flushes_and_goes_on(
    client: Client, first: Speech, second: Speech
) -> None:
    """The timeline goes on over another rate, encoding and number of channels, with offsets and without."""
    held = np.repeat(second.samples, 3).astype("<f4")  # 48 kHz, each sample held for three
    shape = {"audio_encoding": "pcm_f32le", "audio_sample_rate": 48_000, "audio_channels": 2}
    for session, given in (("with", True), ("without", False)):
        head = await send(client, first, 0 if given else None, audio_session=session)
        for start in range(0, len(held), 48_000):
            where = {"audio_offset": head * 3 + start} if given else {}
            stereo = np.repeat(held[start : start + 48_000], 2).tobytes()
            await client.send(stereo, audio_session=session, **shape, **where)
        await client.send(audio_session=session, audio_event="end", **shape)
        ended = await client.until_type("ended", session=session)
        assert round(ended["received"] * SAMPLES) == head + len(second.samples)
        assert ended["gap"] == {}
        check_tiles(client.heard, ended)
        texts = [b["text"] for b in client.of("final") if b["session"] == session]
        assert texts == [first.words, second.words]


async def test_stream_above_max_streams_is_rejected_until_one_ends(
    nats_server: NatsServer, client: Client, first: Speech
) -> None:
    """The rejection names MAX_STREAMS. The stream is heard once there is room."""
    async with Daemon(nats_server.url, MAX_STREAMS="1", AUDIO_SAMPLE_RATE="16000", **QUICK) as daemon:
        await send(client, first, audio_session="run")
        await client.send(s16(first.samples), subject="audio.s2")
        rejected = await client.until_type("rejected", stream="s2")
        await client.send(audio_event="end")
        await client.until_type("ended", stream="s1")
        await client.send(s16(first.samples), subject="audio.s2", audio_event="end")
        await client.until_type("ended", stream="s2")
        assert await daemon.stop() == 0
    assert (rejected["reason"], "MAX_STREAMS=1" in rejected["detail"]) == ("streams", True)
    assert client.text("s1") == client.text("s2") == first.words
    assert len(client.of("rejected")) == 1
