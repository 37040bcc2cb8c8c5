"""Stored audio, transcripts and leases that are made again or restored: what is new is read, and nothing twice."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chaos import (
    connected,
    covered,
    durable,
    everything,
    publish,
    set_up_streams,
    transcript,
    until_ended,
)
from harness import PATIENCE, Daemon, NatsServer, Speech
from nats.js.api import StreamConfig, StreamSource

from transcriber.daemon.shutdown import ExitCode


async def delete(server: NatsServer, stream: str) -> None:
    async with connected(server.url) as client:
        await client.jetstream().delete_stream(stream)


async def until_type(server: NatsServer, kind: str, count: int) -> None:
    """Wait for so many records of a type, of all streams together."""
    async with asyncio.timeout(PATIENCE):
        while [b["type"] for b in await transcript(server.url, None)].count(kind) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def until_sessions(server: NatsServer, count: int) -> list[list[dict[str, Any]]]:
    """Wait for so many ended sessions of `s1`; returns the records of each, events about the stream left out."""
    async with asyncio.timeout(PATIENCE):
        while [b["type"] for b in await transcript(server.url)].count("ended") < count:  # noqa: ASYNC110 - of a server
            await asyncio.sleep(0.1)
    records = [b for b in await transcript(server.url) if b["type"] != "replaced"]
    names = dict.fromkeys(b["session"] for b in records)
    return [[b for b in records if b["session"] == name] for name in names]


def check(session: list[dict[str, Any]], speech: Speech) -> None:
    found = covered(session)
    assert (found.received, found.lost, found.doubled, found.gaps) == (everything(speech), 0, 0, 0)


@pytest.mark.parametrize("longer", [False, True])
async def test_audio_that_is_made_again_while_nobody_reads_is_read(
    server: NatsServer, heldout: Speech, longer: bool
) -> None:
    """Whether it has fewer messages by then than were read before, or more."""
    before, after = (heldout.cut(0, 2), heldout.cut(2, 7)) if longer else (heldout.cut(0, 5), heldout.cut(5, 7))
    await set_up_streams(server.url)
    await publish(server.url, before)
    async with Daemon(server.url, **(settings := durable())):
        await until_ended(server.url)
    await delete(server, "AUDIO")
    await set_up_streams(server.url)
    await publish(server.url, after, session="y")
    async with Daemon(server.url, **settings) as daemon:
        first, second = await until_sessions(server, 2)
        await daemon.logged("AUDIO was made again or restored; going on at message 1 instead of ")
    check(first, before)
    check(second, after)
    (told,) = (b for b in await transcript(server.url) if b["type"] == "replaced")
    assert told["session"] == "x"
    assert "made again" in told["detail"]


async def forget_the_mark(server: NatsServer) -> None:
    """Write the last record again, as an earlier version wrote it."""
    async with connected(server.url) as client:
        last = await client.jetstream().get_last_msg("TRANSCRIPTS", "transcript.s1.*")
        body = json.loads(last.data or b"")
        del body["mark_seq"], body["mark_time"]
        await client.jetstream().publish(last.subject or "", json.dumps(body).encode())


@pytest.mark.parametrize("longer", [False, True])
async def test_records_without_marks_tell_replaced_audio(server: NatsServer, heldout: Speech, longer: bool) -> None:
    """Their own time tells: what was read before a record cannot be newer than it."""
    before, after = (heldout.cut(0, 1), heldout.cut(2, 6)) if longer else (heldout.cut(0, 4), heldout.cut(5, 6))
    await set_up_streams(server.url)
    await publish(server.url, before)
    async with Daemon(server.url, **(settings := durable())):
        await until_ended(server.url)
    await forget_the_mark(server)
    async with Daemon(server.url, **settings) as daemon:  # the same stream, with records that cannot tell it
        assert await daemon.stop() == ExitCode.CLEAN
    assert "replaced" not in {body["type"] for body in await transcript(server.url)}
    await delete(server, "AUDIO")
    await set_up_streams(server.url)
    await publish(server.url, after, session="y")
    async with Daemon(server.url, **settings) as daemon:
        await until_type(server, "ended", 3)  # with the one that was written again
        await daemon.logged("AUDIO was made again or restored; going on at message 1 instead of ")
    records = await transcript(server.url)
    check([b for b in records if b["session"] == "y"], after)
    assert [b["session"] for b in records if b["type"] == "replaced"] == ["x"]


async def test_audio_replaced_after_a_session_is_an_event(server: NatsServer, heldout: Speech) -> None:
    """No session is open, so the last one of each stream names it. The next start does not tell it again."""
    before, after = heldout.cut(0, 3), heldout.cut(3, 5)
    await set_up_streams(server.url)
    async with Daemon(server.url, **(settings := durable())) as daemon:
        for stream in ("s1", "s2"):
            await publish(server.url, before, stream)
            await until_ended(server.url, stream)
        await delete(server, "AUDIO")
        await daemon.logged("stored audio: stream not found")
        await set_up_streams(server.url)
        await until_type(server, "replaced", 2)
        await publish(server.url, after, session="y")
        _, second = await until_sessions(server, 2)
        assert await daemon.stop() == ExitCode.CLEAN
    check(second, after)
    async with Daemon(server.url, **settings) as daemon:
        assert await daemon.stop() == ExitCode.CLEAN
    told = [(b["stream"], b["session"]) for b in await transcript(server.url, None) if b["type"] == "replaced"]
    assert sorted(told) == [("s1", "x"), ("s2", "x")]


@pytest.mark.slow
async def test_audio_that_is_made_again_under_the_daemon_is_read(server: NatsServer, heldout: Speech) -> None:
    """The session that is open learns of it; what was acknowledged and not read before is gone with the old stream."""
    before, after = heldout.cut(0, 3), heldout.cut(3, 5)
    await set_up_streams(server.url)
    async with Daemon(server.url, **durable(STREAM_TIMEOUT_SECS="1")) as daemon:
        await publish(server.url, before, end=False)
        async with asyncio.timeout(PATIENCE):
            while not await transcript(server.url) or (await transcript(server.url))[-1]["end"] < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await delete(server, "AUDIO")
        await daemon.logged("stored audio: stream not found")
        await set_up_streams(server.url)
        await daemon.logged("AUDIO was made again or restored; going on at message 1")
        await publish(server.url, after, session="y")
        _, second = await until_sessions(server, 2)
        assert await daemon.stop() == ExitCode.CLEAN
    check(second, after)
    assert [b["session"] for b in await transcript(server.url) if b["type"] == "replaced"] == ["x"]


@pytest.mark.slow
async def test_audio_that_is_restored_from_a_backup_is_read_from_there(
    server: NatsServer, heldout: Speech, tmp_path: Path
) -> None:
    """What was settled and is in the backup is not read twice; what got the same numbers afterwards is read."""
    first, second, third = heldout.cut(0, 2), heldout.cut(2, 4), heldout.cut(4, 9)
    store, backup = tmp_path / "jetstream" / "jetstream" / "$G" / "streams" / "AUDIO", tmp_path / "backup"
    await set_up_streams(server.url)
    settings = durable()
    await publish(server.url, first, session="x")
    async with Daemon(server.url, **settings):
        await until_sessions(server, 1)
    server.kill()
    shutil.copytree(store, backup)
    server.start()
    await publish(server.url, second, session="y")
    async with Daemon(server.url, **settings):
        await until_sessions(server, 2)
    server.kill()
    shutil.rmtree(store)
    shutil.copytree(backup, store)
    server.start()
    await publish(server.url, third, session="z")
    async with Daemon(server.url, **settings):
        sessions = await until_sessions(server, 3)
    assert len(sessions) == 3
    for session, speech in zip(sessions, (first, second, third), strict=True):
        check(session, speech)


async def test_new_transcript_stream_ends_the_daemon_with_a_sentence(server: NatsServer, heldout: Speech) -> None:
    """They are the checkpoint: the next start transcribes all stored audio into the new stream."""
    speech = heldout.cut(0, 3)
    await set_up_streams(server.url)
    async with Daemon(server.url, **(settings := durable())) as daemon:
        await publish(server.url, speech)
        await until_ended(server.url)
        await delete(server, "TRANSCRIPTS")
        await set_up_streams(server.url)
        await publish(server.url, heldout.cut(3, 5), session="y")
        assert await daemon.ended() == ExitCode.FENCED
    assert any("Start again: audio is transcribed from where this stream ends" in r["message"] for r in daemon.records)
    async with Daemon(server.url, **settings):
        first, second = await until_sessions(server, 2)
    check(first, speech)
    check(second, heldout.cut(3, 5))


async def copy(server: NatsServer, source: str, mirror: str) -> None:
    """Make a mirror of a stream, and wait until it has everything."""
    async with connected(server.url) as client:
        jetstream = client.jetstream()
        await jetstream.add_stream(StreamConfig(mirror, mirror=StreamSource(source)))
        wanted = (await jetstream.stream_info(source)).state.last_seq
        async with asyncio.timeout(PATIENCE):
            while (await jetstream.stream_info(mirror)).state.last_seq < wanted:  # noqa: ASYNC110 - of a server
                await asyncio.sleep(0.1)


async def promote(server: NatsServer, mirror: str, *subjects: str) -> None:
    """Make a stream of its own out of a mirror."""
    async with connected(server.url) as client:
        jetstream = client.jetstream()
        config = (await jetstream.stream_info(mirror)).config
        await jetstream.update_stream(replace(config, mirror=None, subjects=[*subjects]))


async def lose(server: NatsServer, stream: str) -> None:
    """The stream is deleted. What is left is COPY, with the same messages."""
    await copy(server, stream, "COPY")
    await delete(server, stream)
    await promote(server, "COPY", "copy")


async def fail_over(server: NatsServer, stream: str, *subjects: str) -> None:
    """The stream is lost, and a mirror of what is left takes its place."""
    await lose(server, stream)
    await copy(server, "COPY", stream)
    await promote(server, stream, *subjects)


AUDIO, TRANSCRIPTS = ("AUDIO", "audio.*"), ("TRANSCRIPTS", "transcript.*.final", "transcript.*.event")


@pytest.mark.parametrize(
    ("lost", "running"),
    [(AUDIO, False), pytest.param(AUDIO, True, marks=pytest.mark.slow)]
    + [pytest.param(TRANSCRIPTS, running, marks=pytest.mark.slow) for running in (False, True)],
)
async def test_promoted_mirror_goes_on(
    server: NatsServer, heldout: Speech, lost: tuple[str, ...], running: bool
) -> None:
    """Its messages have the numbers and times of the old ones: nothing is lost, doubled, or called replaced."""
    speech = heldout.cut(0, 5)
    size = speech.rate // 10
    half = len(speech.samples) // 2 // size
    first = replace(speech, samples=speech.samples[: half * size])
    await set_up_streams(server.url)
    await publish(server.url, first, end=False)
    async with Daemon(server.url, **(settings := durable(STREAM_TIMEOUT_SECS="60"))) as daemon:
        await until_type(server, "final", 1)
        if running:
            await fail_over(server, *lost)
            await publish(server.url, speech, begin=half)
            records = await until_ended(server.url)
        assert await daemon.stop() == ExitCode.CLEAN
    if not running:
        await fail_over(server, *lost)
        await publish(server.url, speech, begin=half)
        async with Daemon(server.url, **settings):
            records = await until_ended(server.url)
    assert "replaced" not in {body["type"] for body in records}
    check(records, speech)


async def test_mirror_that_catches_up_is_waited_for(server: NatsServer, heldout: Speech) -> None:
    """It ends before what was read. Taken for a shorter stream, its later messages would be read twice."""
    speech = heldout.cut(0, 3)
    await set_up_streams(server.url)
    await publish(server.url, speech)
    async with Daemon(server.url, **(settings := durable())):
        await until_ended(server.url)
    await lose(server, "AUDIO")
    async with connected(server.url) as client:  # a mirror whose source is not there yet
        jetstream = client.jetstream()
        await jetstream.add_stream(StreamConfig("AUDIO", mirror=StreamSource("LATER")))
        async with Daemon(server.url, wait=False, **settings) as daemon:
            told = await daemon.logged("the transcripts: AUDIO is a mirror at message 0, and ")
            assert told["level"] == "warning"
            await copy(server, "COPY", "LATER")
            await daemon.logged("ready")
            await promote(server, "AUDIO", "audio.*")
            await publish(server.url, heldout.cut(3, 5), session="y")
            first, second = await until_sessions(server, 2)
            assert await daemon.stop() == ExitCode.CLEAN
    assert "replaced" not in {body["type"] for body in await transcript(server.url)}
    check(first, speech)
    check(second, heldout.cut(3, 5))


@pytest.mark.slow
async def test_leases_that_are_made_again_are_taken_again(server: NatsServer, heldout: Speech) -> None:
    """Nobody else has it; the daemon says that it is missing, and works on."""
    speech = heldout.cut(0, 2)
    await set_up_streams(server.url)
    async with Daemon(server.url, **durable()) as daemon:
        await delete(server, "KV_TRANSCRIBER_LEASES")
        await daemon.logged("the lease: ")
        await set_up_streams(server.url)
        await daemon.logged("the lease: answered again")
        await publish(server.url, speech)
        found = covered(await until_ended(server.url))
        assert await daemon.stop() == ExitCode.CLEAN
    assert (found.received, found.lost, found.doubled, found.gaps) == (everything(speech), 0, 0, 0)
