"""A fleet of four daemons and 200 streams for ten minutes: every 20 s a member is killed, joins or is drained.

pytest -m slow -s tests/slow/test_fleet_chaos.py

The engine is a stub: 200 streams of speech are more than two cores can transcribe. All else is real. FLEET_CHAOS_SECS
and FLEET_CHAOS_STREAMS make it shorter or smaller.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
import soxr
from chaos import covered, durable, jetstream_server
from fleets import FLEET, member, set_up_fleet
from harness import STUB, Daemon, NatsServer, Speech, s16

from transcriber.broker.connection import Connection
from transcriber.broker.fleet import FleetStore
from transcriber.broker.options import BrokerOptions
from transcriber.fleet.plan import Plan
from transcriber.fleet.records import decode_member, decode_plan
from transcriber.fleet.view import view
from transcriber.protocol.partitions import LEASE_SECS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SECS = float(os.environ.get("FLEET_CHAOS_SECS", "600"))
STREAMS = int(os.environ.get("FLEET_CHAOS_STREAMS", "200"))
EVERY_SECS = 20.0
CHUNK_SECS = 0.5  # longer ones than usual: the load generator shares the cores
PATIENCE = 180.0  # seconds for a start or a stop: the machine may be busy
RATE = 8000  # Hz
SEED = 20_261_130


@dataclass
class Watched:
    """What was seen from outside."""

    faults: dict[str, int] = field(default_factory=dict)
    dead: dict[str, float] = field(default_factory=dict)  # members, and when they were killed
    orphans: dict[int, tuple[float, int]] = field(
        default_factory=dict
    )  # partitions of those: since when, and the epoch
    ownerless: list[float] = field(default_factory=list)
    evenness: list[float] = field(default_factory=list)

    def look(self, partitions: list[dict[str, Any]]) -> None:
        """Note whose partitions have a new owner."""
        for entry in partitions:
            p, epoch, owner = entry["partition"], entry["epoch"], entry["owner"]
            if owner in self.dead:
                self.orphans.setdefault(p, (self.dead[owner], epoch))
            elif owner is not None and p in self.orphans and epoch > self.orphans[p][1]:
                since, _ = self.orphans.pop(p)
                self.ownerless.append(time.monotonic() - since)


class Fleet:
    """Four members, of which one is away now and then."""

    def __init__(self, server: NatsServer, settings: Callable[[], dict[str, str]]) -> None:
        self.server = server
        self.settings = settings
        self.stack = contextlib.AsyncExitStack()
        self.members: list[Daemon] = []
        self.watched = Watched()
        self.r = random.Random(SEED)

    async def join(self) -> None:
        starting = Daemon(self.server.url, script=STUB, wait=False, **self.settings())
        daemon = await self.stack.enter_async_context(starting)
        await daemon.logged("ready", patience=PATIENCE)
        self.members.append(daemon)

    def pick(self) -> Daemon:
        return self.members.pop(self.r.randrange(len(self.members)))

    async def disturb(self) -> None:
        """Every 20 s something happens, in turn. There are three or four members."""
        until = time.monotonic() + SECS
        for fault in itertools.cycle(("kill", "join", "drain", "join")):
            await asyncio.sleep(EVERY_SECS)
            if time.monotonic() >= until:
                return
            self.watched.faults[fault] = self.watched.faults.get(fault, 0) + 1
            if fault == "join":
                await self.join()
            elif fault == "kill":
                victim = self.pick()
                joined = await victim.logged("joined the fleet")
                victim.process.kill()
                self.watched.dead[joined["member"]] = time.monotonic()
            else:
                daemon = self.pick()
                daemon.terminate()
                assert await daemon.ended(PATIENCE) == 0

    async def watch(self) -> None:
        """Look at plan and members ten times a second."""
        connection = Connection(BrokerOptions(url=self.server.url))
        await connection.open()
        store = FleetStore(connection, FLEET.name)
        while True:
            with contextlib.suppress(nats.errors.Error, TimeoutError):  # the machine is busy
                payload, _ = await store.plan()
                members = {one: decode_member(entry) for one, entry in (await store.members()).items()}
                self.look(view(decode_plan(payload) if payload else Plan.empty(FLEET.partitions), members))
            await asyncio.sleep(0.1)

    def look(self, seen: dict[str, Any]) -> None:
        self.watched.look(seen["partitions"])
        carried = [m["load"] for m in seen["members"] if not m["draining"]]
        at_rest = not seen["without_owner"] and not seen["moving"]
        if at_rest and len(carried) >= 3 and sum(carried) > STREAMS / 2:
            self.watched.evenness.append(max(carried) * len(carried) / sum(carried))


async def speak(url: str, speech: Speech, streams: range, publish: Callable[..., Awaitable[object]]) -> None:
    """Send the recording over and over in real time, on many streams, each from a place of its own."""
    client = await nats.connect(url)
    size = int(speech.rate * CHUNK_SECS)
    chunks = [s16(speech.samples[at : at + size]) for at in range(0, len(speech.samples) - size, size)]
    began = time.monotonic()
    count = int(SECS / CHUNK_SECS)
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number * CHUNK_SECS - time.monotonic()))
        headers = {
            "Audio-Sample-Rate": str(speech.rate),
            "Audio-Session": "x",
            "Audio-Offset": str(number * size),
            **({"Audio-Event": "end"} if number == count - 1 else {}),
        }
        for stream in streams:
            await publish(client, f"s{stream}", chunks[(number + stream) % len(chunks)], headers)
    await client.drain()


async def stored(client: nats.NATS, stream: str, payload: bytes, headers: dict[str, str]) -> None:
    """As a durable producer: it knows of no partitions."""
    await client.publish(f"audio.{stream}", payload, headers=headers)


async def live(client: nats.NATS, stream: str, payload: bytes, headers: dict[str, str]) -> None:
    await client.publish(FLEET.subject_of(stream), payload, headers=headers)


async def run(fleet: Fleet, speech: Speech, publish: Callable[..., Awaitable[object]]) -> None:
    narrow = soxr.resample(speech.samples, speech.rate, RATE, "HQ")  # 200 streams fill the disk otherwise
    speech = Speech(narrow, RATE, speech.rows)
    for _ in range(4):
        await fleet.join()
    await asyncio.sleep(3)
    watching = asyncio.create_task(fleet.watch())
    parts = 4  # connections of the load generator
    shares = [range(n * STREAMS // parts, (n + 1) * STREAMS // parts) for n in range(parts)]
    speaking = [speak(fleet.server.url, speech, share, publish) for share in shares]
    await asyncio.gather(fleet.disturb(), *speaking)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


async def records(url: str) -> dict[str, list[dict[str, Any]]]:
    """Every stored record, by stream."""
    client = await nats.connect(url)
    jetstream = client.jetstream()
    subscription = await jetstream.subscribe("transcript.>", ordered_consumer=True)
    last = (await jetstream.stream_info("TRANSCRIPTS")).state.last_seq
    found: dict[str, list[dict[str, Any]]] = {}
    while True:
        message = await subscription.next_msg(timeout=10)
        body = json.loads(message.data)
        found.setdefault(body["stream"], []).append(body)
        if message.metadata.sequence.stream >= last:
            await client.close()
            return found


async def until_all_ended(url: str, patience: float = 300.0) -> dict[str, list[dict[str, Any]]]:
    deadline = time.monotonic() + patience
    while True:
        found = await records(url)
        ended = [s for s, bodies in found.items() if bodies[-1]["type"] == "ended"]
        if len(ended) == STREAMS or time.monotonic() > deadline:
            return found
        await asyncio.sleep(5)


def report(title: str, watched: Watched, rows: dict[str, float]) -> None:
    even = sorted(watched.evenness) or [float("nan")]
    print(f"\n{title}: {STREAMS} streams, {SECS:g} s, {watched.faults}")
    rows |= {
        "partitions taken over": len(watched.ownerless),
        "longest without owner": max(watched.ownerless, default=0.0),
        "busiest over mean, median": even[len(even) // 2],
        "busiest over mean, p95": even[int(0.95 * len(even))],
    }
    for name, value in rows.items():
        print(f"  {name:42} {value:6.2f}")


async def test_durable_fleet_loses_and_doubles_nothing(tmp_path: Path, heldout: Speech) -> None:
    with jetstream_server(tmp_path) as server:
        await set_up_fleet(server.url)
        fleet = Fleet(server, lambda: durable(**member(STUB_SECS="0.005", PARTIAL_INTERVAL_SECS="0")))
        async with fleet.stack:
            await run(fleet, heldout, stored)
            found = await until_all_ended(server.url)
        stories = [covered(bodies) for bodies in found.values()]
        lost, doubled = sum(s.lost + s.gaps for s in stories), sum(s.doubled for s in stories)
        received = sum(s.received for s in stories)
    rows = {"seconds received": received / 16e3, "lost": lost / 16e3, "doubled": doubled / 16e3}
    report("durable", fleet.watched, rows)
    assert len(found) == STREAMS
    assert received == pytest.approx(STREAMS * int(SECS / CHUNK_SECS) * CHUNK_SECS * 16_000, rel=1e-6)
    assert (lost, doubled) == (0, 0)
    assert max(fleet.watched.ownerless) <= LEASE_SECS + 2


async def test_live_fleet_tells_every_lost_second(tmp_path: Path, heldout: Speech) -> None:
    heard: dict[str, list[dict[str, Any]]] = {}
    all_ended = asyncio.Event()
    with jetstream_server(tmp_path) as server:
        await set_up_fleet(server.url, live=True)
        client = await nats.connect(server.url)

        async def hear(message: nats.aio.msg.Msg) -> None:
            body = json.loads(message.data)
            if body["type"] in {"final", "gap", "started", "ended", "rejected"}:
                heard.setdefault(body["stream"], []).append(body)
            if body["type"] == "ended" and sum(b[-1]["type"] == "ended" for b in heard.values()) == STREAMS:
                all_ended.set()

        await client.subscribe("transcript.>", cb=hear)
        fleet = Fleet(server, lambda: member(STUB_SECS="0.005", PARTIAL_INTERVAL_SECS="0", STATUS_INTERVAL_SECS="60"))
        async with fleet.stack:
            await run(fleet, heldout, live)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(60):
                    await all_ended.wait()
        await client.close()
    ended = [bodies[-1] for bodies in heard.values() if bodies[-1]["type"] == "ended"]
    gaps = [body for bodies in heard.values() for body in bodies if body["type"] == "gap"]
    interruptions = [body["end"] - body["start"] for body in gaps]
    expected = int(SECS / CHUNK_SECS) * CHUNK_SECS
    rows = {
        "seconds received": sum(body["received"] for body in ended),
        "in gaps": sum(interruptions),
        "longest gap": max(interruptions, default=0.0),
        "streams that ended": len(ended),
    }
    report("live", fleet.watched, rows)
    assert len(ended) == STREAMS
    assert {round(body["received"], 3) for body in ended} == {round(expected, 3)}
    assert {body["pending"] for body in ended} == {0}
    assert max(fleet.watched.ownerless) <= LEASE_SECS + 2
