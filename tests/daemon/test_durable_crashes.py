"""Durable mode through crashes of the daemon, its Whisper thread and the server. test_chaos.py runs for longer."""

from __future__ import annotations

import asyncio
import time

import jiwer
from chaos import covered, durable, everything, publish, set_up_streams, transcript, until_ended
from harness import STUB, Daemon, NatsServer, Speech

from transcriber.daemon.shutdown import ExitCode


async def test_daemon_killed_four_times_loses_and_doubles_nothing(server: NatsServer, heldout: Speech) -> None:
    """Each kill -9 comes in mid-speech. Each start goes on where the transcripts end."""
    speech = heldout.cut(0, 12)
    await set_up_streams(server.url)
    settings = durable()
    publishing = asyncio.create_task(publish(server.url, speech, pace=0.02))
    for seconds in (0.7, 0.2, 1.1, 0.5):
        async with Daemon(server.url, **settings) as daemon:
            await asyncio.sleep(seconds)
            daemon.process.kill()
    async with Daemon(server.url, **settings):
        await publishing
        found = covered(await until_ended(server.url))
    assert (found.received, found.lost, found.doubled) == (everything(speech), 0, 0)
    assert jiwer.wer(speech.words, found.text) <= 0.15  # windows may be cut elsewhere after a restart


async def test_killed_server_comes_back_with_all_it_had(server: NatsServer, heldout: Speech) -> None:
    """The server is killed twice with kill -9. The daemon goes on by itself."""
    speech = heldout.cut(0, 12)
    await set_up_streams(server.url)
    async with Daemon(server.url, **durable()) as daemon:
        publishing = asyncio.create_task(publish(server.url, speech, pace=0.02))
        for _ in range(2):
            await asyncio.sleep(1.2)
            server.kill()
            await asyncio.sleep(0.5)
            server.start()
        await publishing
        found = covered(await until_ended(server.url))
        assert await daemon.stop() == ExitCode.CLEAN
    assert (found.received, found.lost, found.doubled) == (everything(speech), 0, 0)
    assert jiwer.wer(speech.words, found.text) <= 0.15


async def test_sigterm_leaves_the_open_window_to_the_next_start(server: NatsServer, heldout: Speech) -> None:
    """There is no gap(shutdown) and no end: the session goes on, to the sample."""
    speech = heldout.cut(0, 4)
    await set_up_streams(server.url)
    settings = durable()
    publishing = asyncio.create_task(publish(server.url, speech, pace=0.05))
    async with Daemon(server.url, **settings) as daemon:
        await asyncio.sleep(2)
        assert await daemon.stop() == ExitCode.CLEAN
    types = {body["type"] for body in await transcript(server.url)}
    assert not types & {"gap", "ended"}
    async with Daemon(server.url, **settings):
        await publishing
        found = covered(await until_ended(server.url))
    assert (found.received, found.lost, found.doubled) == (everything(speech), 0, 0)


async def test_standby_takes_over_when_the_working_daemon_dies(server: NatsServer, heldout: Speech) -> None:
    """The standby works within 15 s of the death of the first daemon."""
    speech = heldout.cut(0, 8)
    await set_up_streams(server.url)
    async with Daemon(server.url, **durable()) as first, Daemon(server.url, wait=False, **durable()) as second:
        await second.logged("standing by")
        assert await second.probe("/readyz") == 200  # or an update of the deployment would wait for ever
        publishing = asyncio.create_task(publish(server.url, speech, pace=0.02))
        await asyncio.sleep(1)
        first.process.kill()
        died = time.monotonic()
        await second.logged("ready", patience=20)
        assert time.monotonic() - died < 15
        await publishing
        found = covered(await until_ended(server.url))
    assert (found.received, found.lost, found.doubled) == (everything(speech), 0, 0)


async def test_window_of_a_dead_whisper_thread_goes_to_the_next_daemon(server: NatsServer, heldout: Speech) -> None:
    """/livez fails, so that the process is replaced. The window on which the thread died is no gap."""
    speech = heldout.cut(0, 6)
    await set_up_streams(server.url)
    await publish(server.url, speech)
    settings = durable(SHUTDOWN_GRACE_SECS="2", PARTIAL_INTERVAL_SECS="0")
    async with Daemon(server.url, script=STUB, STUB_DIES_AT="4", **settings) as daemon:
        async with asyncio.timeout(20):
            while await daemon.probe("/livez") == 200:  # noqa: ASYNC110 - it tells when it is asked
                await asyncio.sleep(0.05)
        assert await daemon.stop() == ExitCode.CLEAN
    assert [body["type"] for body in await transcript(server.url)].count("final") == 2  # the first call is the warm-up
    async with Daemon(server.url, **settings):
        found = covered(records := await until_ended(server.url))
    assert (found.received, found.lost, found.doubled) == (everything(speech), 0, 0)
    assert "gap" not in {body["type"] for body in records}
