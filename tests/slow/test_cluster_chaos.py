"""Three servers that replicate, faults by the dozen, two streams of speech in durable mode and two in live mode.

pytest -m slow -s tests/slow/test_cluster_chaos.py

Both daemons run the bundled model. They work in accounts of their own, so that neither hears the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import nats.errors
import pytest
from chaos import covered, durable, everything, publish, set_up_streams, until_ended
from cluster import Cluster
from harness import Client, Daemon, Speech, s16
from jwts import Authority

from transcriber.broker.setup import Storage
from transcriber.daemon.shutdown import ExitCode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
STREAMS = ("AUDIO", "TRANSCRIPTS", "KV_TRANSCRIBER_LEASES")
NAMES = ("s1", "s2")
LASTS = 6.0  # seconds, of credentials that expire,
FIRST_LAST = 30.0  # and of the first ones, with which the daemons have to start
SECOND = 16_000  # samples


@dataclass
class Site:
    cluster: Cluster
    folder: Path
    authority: Authority
    daemons: list[Daemon]

    def creds(self, account: str) -> Path:
        return self.folder / f"{account}.creds"


Fault = Callable[[Site, int], Awaitable[None]]


async def kill(site: Site, turn: int) -> None:
    await site.cluster.kill_leader(STREAMS[turn % len(STREAMS)])


async def freeze(site: Site, turn: int) -> None:
    await site.cluster.freeze_leader(STREAMS[turn % len(STREAMS)])


async def cut(site: Site, turn: int) -> None:
    await site.cluster.cut_leader(STREAMS[turn % len(STREAMS)])


async def renew(site: Site, _turn: int) -> None:
    """The credentials of both daemons expire; there are new ones all the time, good for a few seconds."""
    before = [_reconnects(daemon) for daemon in site.daemons]
    async with asyncio.timeout(90):
        while any(_reconnects(d) <= n for d, n in zip(site.daemons, before, strict=True)):
            for account in ("durable", "live"):
                site.authority.write(site.creds(account), LASTS, account)
            await asyncio.sleep(1)


def _reconnects(daemon: Daemon) -> int:
    return [record["message"] for record in daemon.records].count("NATS reconnected")


async def speak(client: Client, speech: Speech, stream: str, done: asyncio.Event) -> None:
    """Real time, with offsets, over and over until `done`; then the end, until it is heard."""
    size, pcm, offset = speech.rate // 10, s16(speech.samples), 0
    while not client.of("started", stream=stream):  # until the servers know of each other's subscribers
        await _send(client, pcm[: 2 * size], stream, speech.rate, audio_offset=0)
        await asyncio.sleep(0.1)
    begin = time.monotonic()
    while not done.is_set() or offset % len(speech.samples) > size:
        at = offset % len(speech.samples)
        piece = pcm[2 * at : 2 * (at + size)]
        await _send(client, piece, stream, speech.rate, audio_offset=offset)
        offset += len(piece) // 2
        await asyncio.sleep(max(0.0, begin + offset / speech.rate - time.monotonic()))
    while not client.of("ended", stream=stream):
        await _send(client, b"", stream, speech.rate, audio_offset=offset, audio_event="end")
        await asyncio.sleep(0.5)
    (ended,) = client.of("ended", stream=stream)
    assert round(ended["received"] * SECOND) == round(offset * SECOND / speech.rate)


async def _send(client: Client, piece: bytes, stream: str, rate: int, **headers: Any) -> None:
    with contextlib.suppress(nats.errors.Error, OSError):  # what is lost becomes a gap
        await client.send(piece, subject=f"audio.{stream}", audio_sample_rate=rate, audio_session="x", **headers)


def live_row(client: Client, daemon: Daemon) -> tuple[float, float, float]:
    """Seconds heard of, lost without a gap, and in gaps with bounds."""
    heard = lost = gaps = 0.0
    for name in NAMES:
        (ended,) = client.of("ended", stream=name)
        in_gaps = sum(ended["gap"].values())
        heard += ended["received"]
        lost += abs(ended["received"] - ended["transcribed"] - ended["silent"] - in_gaps)
        # In the log or as an event: what was published while the listener's own server was away it has not heard.
        logged = [r for r in daemon.records if r["message"] == "audio dropped" and r["stream"] == name]
        bounds = {(g["start"], g["end"]) for g in [*client.of("gap", stream=name), *logged]}
        assert sum(end - start for start, end in bounds) == pytest.approx(in_gaps, abs=1e-3)
        gaps += in_gaps
    return heard, lost, gaps


async def run(folder: Path, speech: Speech, case: Case) -> str:
    authority = Authority("durable", "live")
    authority.write(folder / "test.creds", 86_400, "durable")
    authority.write(folder / "listen.creds", 86_400, "live")
    harness.IDENTITY["user_credentials"] = str(folder / "test.creds")
    async with Cluster(folder / "nats", authority.config) as cluster:
        url = cluster.url
        await set_up_streams(url, Storage(replicas=3))
        site = Site(cluster, folder, authority, [])
        for account in ("durable", "live"):
            authority.write(site.creds(account), case.expire, account)
        mine = [{"NATS_CREDS": str(site.creds(account)), "WHISPER_RTF": "0.05"} for account in ("durable", "live")]
        done = asyncio.Event()
        async with (
            Daemon(url, **durable(**mine[0])) as stored,
            Daemon(url, **mine[1], TRANSCRIPTION_MAX_LATENCY_SECS="60") as live,
            Client(url, user_credentials=str(folder / "listen.creds")) as client,
        ):
            site.daemons += [stored, live]
            speaking = [asyncio.create_task(speak(client, speech, name, done)) for name in NAMES]
            publishing = [asyncio.create_task(_publish_until(url, speech, name, done)) for name in NAMES]
            for turn in range(case.count):
                await case.fault(site, turn)
            for account in ("durable", "live"):
                authority.write(site.creds(account), 86_400, account)
            done.set()
            sessions = await asyncio.gather(*publishing)
            await asyncio.wait_for(asyncio.gather(*speaking), 120)
            rows = [await _durable_row(url, speech, name, n) for name, n in zip(NAMES, sessions, strict=True)]
            heard, lost, gaps = live_row(client, live)
            assert await stored.stop() == ExitCode.CLEAN
            assert await live.stop() == ExitCode.CLEAN
    stored_row = [sum(row[i] for row in rows) / SECOND for i in range(3)]
    figures = [*stored_row, heard, lost, gaps]
    return f"{case.count:6}  {'{:11.1f} {:5.1f} {:8.1f}  {:9.1f} {:5.1f} {:6.1f}'.format(*figures)}"


async def _publish_until(url: str, speech: Speech, name: str, done: asyncio.Event) -> int:
    """Sessions one after the other until `done`; returns how many."""
    count = 0
    while not done.is_set() or not count:
        await publish(url, speech, name, session=f"x{count}", pace=0.09)
        count += 1
    return count


async def _durable_row(url: str, speech: Speech, name: str, count: int) -> tuple[int, int, int]:
    """Samples received, lost and doubled of all sessions of a stream."""
    records: list[dict[str, Any]] = []
    async with asyncio.timeout(240):
        while [b["type"] for b in records].count("ended") < count:
            records = await until_ended(url, name, patience=240)
            await asyncio.sleep(0.5)
    total = [0, 0, 0]
    for n in range(count):
        found = covered([b for b in records if b["session"] == f"x{n}"])
        total[0] += found.received
        # An acknowledged chunk that never came is a hole in the offsets, and so a gap: here that is a loss, too.
        total[1] += found.lost + everything(speech) - found.received + found.gaps
        total[2] += found.doubled
    return total[0], total[1], total[2]


@dataclass(frozen=True)
class Case:
    name: str
    fault: Fault
    count: int
    expire: float = 86_400.0  # seconds, when the daemons' first credentials do


CASES = [
    Case("leader killed (SIGKILL)", kill, 10),
    Case("leader frozen (SIGSTOP)", freeze, 10),
    Case("leader cut off", cut, 10),
    Case("credentials renewed", renew, 5, FIRST_LAST),
]
HEAD = f"{'fault':24}  faults  durable (s)  lost  doubled   live (s)  lost   gaps"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_cluster_chaos(tmp_path: Path, heldout: Speech, case: Case) -> None:
    try:
        row = await run(tmp_path, heldout.cut(0, 6), case)
    finally:
        harness.IDENTITY.clear()
    print(f"\n{HEAD}\n{case.name:24}  {row}", flush=True)
    columns = row.split()
    assert columns[2] == columns[3] == columns[5] == "0.0", row
