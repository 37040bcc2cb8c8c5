"""Faults by the dozen against durable mode, and a table of what came of each: faults, audio, lost, doubled.

pytest -m slow -s tests/slow/test_chaos.py
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import jiwer
import pytest
from chaos import covered, durable, everything, jetstream_server, publish, set_up_streams, until_ended
from harness import STUB, Daemon, NatsServer, Speech

from transcriber.broker.lease import LEASE_SECS
from transcriber.daemon.shutdown import ExitCode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SEED = 20_261_121
PATIENCE = 240.0  # seconds, from the last fault to the end of the transcript

Fault = Callable[[NatsServer, dict[str, str], asyncio.Task[None]], Awaitable[int]]


async def run(folder: Path, speech: Speech, fault: Fault, pace: float, *, config: str = "", **environ: str) -> str:
    """Publish while faults happen; returns a row of the table. Nothing may be lost or doubled."""
    with jetstream_server(folder, config) as server:
        await set_up_streams(server.url)
        settings = durable(**environ)
        publishing = asyncio.create_task(publish(server.url, speech, pace=pace))
        count = await fault(server, settings, publishing)
        async with Daemon(server.url, script=Path(environ["SCRIPT"]) if "SCRIPT" in environ else None, **settings):
            await publishing
            found = covered(await until_ended(server.url, patience=PATIENCE))
    assert found.received == everything(speech)
    assert (found.lost, found.doubled) == (0, 0)
    wer = jiwer.wer(speech.words, found.text) if "SCRIPT" not in environ else float("nan")
    seconds = [samples / 16_000 for samples in (found.received, found.lost, found.doubled)]
    row = f"{count:6}  {seconds[0]:9.1f}  {seconds[1]:5.1f}  {seconds[2]:8.1f}  {wer:6.1%}"
    assert not wer > 0.08, row
    return row


async def undisturbed(_server: NatsServer, _settings: dict[str, str], _publishing: asyncio.Task[None]) -> int:
    return 0


async def kill_the_daemon(server: NatsServer, settings: dict[str, str], _publishing: asyncio.Task[None]) -> int:
    """At 50 random moments, from before it is ready to after seconds of work."""
    r = random.Random(SEED)
    for _ in range(50):
        async with Daemon(server.url, wait=False, **settings) as daemon:
            await asyncio.sleep(r.uniform(0.3, 3.5))
            daemon.process.kill()
    return 50


async def kill_the_server(server: NatsServer, settings: dict[str, str], _publishing: asyncio.Task[None]) -> int:
    r = random.Random(SEED)
    async with Daemon(server.url, **settings) as daemon:
        for _ in range(10):
            await asyncio.sleep(r.uniform(0.5, 5))
            server.kill()
            await asyncio.sleep(r.uniform(0.1, 2))
            server.start()
        assert await daemon.stop() == ExitCode.CLEAN
    return 10


async def freeze_the_daemon(server: NatsServer, settings: dict[str, str], _publishing: asyncio.Task[None]) -> int:
    """For 30 s, five times, while a standby takes over. Once thawed, it finds that out and leaves."""
    for _ in range(5):
        async with Daemon(server.url, **settings) as first, _standby(server):
            await asyncio.sleep(1)
            first.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(30)
            first.process.send_signal(signal.SIGCONT)
            assert await first.ended() == ExitCode.FENCED
    return 5


@asynccontextmanager
async def _standby(server: NatsServer) -> AsyncIterator[Daemon]:
    async with Daemon(server.url, wait=False, **durable()) as second:
        await second.logged("standing by")
        yield second
        await second.logged("ready")
        assert await second.stop() == ExitCode.CLEAN


async def two_at_once(server: NatsServer, settings: dict[str, str], _publishing: asyncio.Task[None]) -> int:
    """The working daemon is killed six times. The other one takes over, and a new one stands by."""
    async with Daemon(server.url, **settings) as first:
        working = first
        for _ in range(6):
            async with Daemon(server.url, wait=False, **durable()) as other:
                await other.logged("standing by")
                await asyncio.sleep(1)
                working.process.kill()
                await other.logged("ready", patience=20)
                await asyncio.sleep(1)
                assert await other.stop() == ExitCode.CLEAN
            working = await Daemon(server.url, **settings).__aenter__()
        assert await working.stop() == ExitCode.CLEAN
        await working.__aexit__()
    return 6


async def fill_the_store(server: NatsServer, settings: dict[str, str], publishing: asyncio.Task[None]) -> int:
    """It takes no chunks, no records and not even a lease, until the server comes back with more room."""
    async with Daemon(server.url, **settings) as daemon:
        await daemon.logged("TRANSCRIPTS takes no record", patience=PATIENCE)
        assert not publishing.done()
        daemon.process.kill()
    await asyncio.sleep(LEASE_SECS)
    async with Daemon(server.url, wait=False, **settings) as daemon:
        await daemon.logged("the lease: ", patience=PATIENCE)
        server.kill()
        server.config = ""
        server.start()
        await daemon.logged("ready", patience=PATIENCE)
        assert await daemon.stop() == ExitCode.CLEAN
    return 1


CASES: list[tuple[str, Fault, float, dict[str, str]]] = [
    ("undisturbed", undisturbed, 0.0, {}),
    ("daemon killed (SIGKILL)", kill_the_daemon, 0.03, {}),
    ("server killed (SIGKILL)", kill_the_server, 0.012, {}),
    ("daemon frozen for 30 s", freeze_the_daemon, 0.04, {}),
    ("two daemons, one killed", two_at_once, 0.02, {}),
    ("max_file_store reached", fill_the_store, 0.012, {"config": "jetstream { max_file_store: 4MB }"}),
    ("slow engine (RTF 0.5)", undisturbed, 0.0, {"SCRIPT": str(STUB), "STUB_SECS": "0.5"}),
]


async def test_chaos(tmp_path: Path, heldout: Speech) -> None:
    speech = heldout.cut(0, 60)
    print(f"\n{'fault':26}  faults  audio (s)   lost   doubled     WER")
    for name, fault, pace, more in CASES:
        part = speech if "SCRIPT" not in more else heldout.cut(0, 20)
        row = await run(tmp_path / name.replace(" ", "-"), part, fault, pace, **more)
        print(f"{name:26}  {row}", flush=True)
