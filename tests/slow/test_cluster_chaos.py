"""Three servers that replicate, faults by the dozen, two streams of speech in durable mode and two in live mode.

pytest -m slow -s tests/slow/test_cluster_chaos.py

Both daemons run the bundled model. They work in accounts of their own, so that neither hears the other. In live mode,
one listener on each server hears what is published, as nothing passes a cut. `one missed` is what an ordinary listener,
which moves from server to server, has not heard: NATS repeats nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import astuple, dataclass
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
class LiveRow:
    """Samples: of the sessions, in no final and no gap that was heard, in gaps, and missed by one listener alone."""

    received: int = 0
    lost: int = 0
    gaps: int = 0
    missed: int = 0


@dataclass
class Site:
    cluster: Cluster
    folder: Path
    authority: Authority
    daemons: list[Daemon]

    def creds(self, account: str) -> Path:
        return self.folder / f"{account}.creds"


Fault = Callable[[Site, int], Awaitable[None]]


def kill(stream: str) -> Fault:
    async def kill_leader(site: Site, _turn: int) -> None:
        await site.cluster.kill_leader(stream)

    return kill_leader


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
    first = f"{stream}-first"
    while not client.of("ended", stream=first):  # until the servers know of each other's subscribers
        await _send(client, pcm[: 2 * size], first, speech.rate, audio_event="end")
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


def as_heard(ears: list[Client]) -> list[dict[str, Any]]:
    """Finals and events, each once, that any of these listeners has heard."""
    messages = (m for ear in ears for m in ear.raw if m.subject.endswith((".final", ".event")))
    return [*{(m.headers or {})["Nats-Msg-Id"]: json.loads(m.data) for m in messages}.values()]


def live_row(heard: list[dict[str, Any]], one: list[dict[str, Any]]) -> LiveRow:
    """What all listeners together have heard of every session, and what one alone, in samples."""
    total = LiveRow()
    for name in NAMES:
        (ended,) = (b for b in heard if b["type"] == "ended" and b["stream"] == name)
        fates = [("final", ended["transcribed"]), ("gap", sum(ended["gap"].values()))]
        total.received += _samples(ended["received"])
        total.gaps += _samples(fates[1][1])
        for bodies in (heard, one):
            spans = {kind: _spans(bodies, name, kind) for kind, _ in fates}
            every = sorted(span for found in spans.values() for span in found)
            assert all(end <= start for (_, end), (start, _) in itertools.pairwise(every)), every
            missing = sum(_samples(seconds) - sum(e - s for s, e in spans[kind]) for kind, seconds in fates)
            if bodies is heard:
                total.lost += missing
            else:
                total.missed += missing
    return total


def _spans(bodies: list[dict[str, Any]], stream: str, kind: str) -> list[tuple[int, int]]:
    mine = (b for b in bodies if b["stream"] == stream and b["type"] == kind)
    return [(_samples(b["start"]), _samples(b["end"])) for b in mine]


def _samples(seconds: float) -> int:
    return round(seconds * SECOND)


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
            contextlib.AsyncExitStack() as stack,
        ):
            ears = [Client(s.url, pinned=True, user_credentials=str(folder / "listen.creds")) for s in cluster.servers]
            for ear in ears:
                await stack.enter_async_context(ear)
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
            for ear in ears:
                await ear.flush()
            spoken = live_row(as_heard([client, *ears]), as_heard([client]))
            assert await stored.stop() == ExitCode.CLEAN
            assert await live.stop() == ExitCode.CLEAN
    figures = [*(sum(column) for column in zip(*rows, strict=True)), *astuple(spoken)]
    row = "{:11.1f} {:5.1f} {:8.1f}  {:9.1f} {:5.1f} {:6.1f} {:11.1f}".format(*(n / SECOND for n in figures))
    assert not any(figures[column] for column in (1, 2, 4)), row
    return f"{case.count:6}  {row}"


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
    Case("AUDIO's leader killed", kill("AUDIO"), 10),
    Case("TRANSCRIPTS' leader killed", kill("TRANSCRIPTS"), 10),
    Case("the leases' leader killed", kill("KV_TRANSCRIBER_LEASES"), 10),
    Case("a leader frozen (SIGSTOP)", freeze, 10),
    Case("a leader cut off", cut, 10),
    Case("credentials renewed", renew, 5, FIRST_LAST),
]
HEAD = f"{'fault':26}  faults  durable (s)  lost  doubled   live (s)  lost   gaps  one missed"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_cluster_chaos(tmp_path: Path, heldout: Speech, case: Case) -> None:
    try:
        row = await run(tmp_path, heldout.cut(0, 6), case)
    finally:
        harness.IDENTITY.clear()
    print(f"\n{HEAD}\n{case.name:26}  {row}", flush=True)
