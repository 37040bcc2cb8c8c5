"""Stored audio, transcripts and leases that are made again or restored: what is new is read, and nothing twice."""

from __future__ import annotations

import asyncio
import shutil
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

from transcriber.daemon.shutdown import ExitCode


async def delete(server: NatsServer, stream: str) -> None:
    async with connected(server.url) as client:
        await client.jetstream().delete_stream(stream)


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
