"""A fleet of real daemons that come and go, a crowd of speakers, and what is seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import nats
import nats.errors
from fleets import views
from harness import STUB, Daemon, NatsServer, Speech, s16

PATIENCE = 180.0  # seconds for a start or a stop: the machine may be busy
CHUNK_SECS = 0.5  # longer ones than usual: the load generator shares the cores
LAST_SECS = 15.0  # without a fault: longer than a dead owner's partitions have none
REST_SECS = 5.0  # after which a plan without moves counts as one at rest

Publish = Callable[[nats.NATS, str, bytes, dict[str, str]], Awaitable[object]]


@dataclass
class Watched:
    """What was seen from outside. Times are seconds since 1970, as in the log and in the server's records."""

    faults: dict[str, int] = field(default_factory=dict)
    dead: dict[str, float] = field(default_factory=dict)  # members, and when they were killed
    orphans: dict[int, tuple[float, int]] = field(default_factory=dict)  # partitions: since when, and the epoch
    ownerless: list[float] = field(default_factory=list)
    taken_over: list[tuple[int, float]] = field(default_factory=list)  # partitions, and when their owner died
    evenness: list[tuple[float, bool]] = field(default_factory=list)  # busiest over mean, and whether at rest
    shares: list[float] = field(default_factory=list)  # streams that moves give to a member, over its fair share
    lag: float = 0.0
    unrest: float = 0.0  # when the plan last moved something, or somebody came, went or began to drain
    _there: set[tuple[str, bool]] = field(default_factory=set)
    _moving: set[int] = field(default_factory=set)

    def look(self, seen: dict[str, Any], streams: int) -> None:
        """Note whose partitions have a new owner, what moves, and how even the fleet is."""
        now = time.time()
        for entry in seen["partitions"]:
            p, epoch, owner = entry["partition"], entry["epoch"], entry["owner"]
            if owner in self.dead:
                if p not in self.orphans:
                    self.taken_over.append((p, self.dead[owner]))
                self.orphans.setdefault(p, (self.dead[owner], epoch))
            elif owner is not None and p in self.orphans and epoch > self.orphans[p][1]:
                since, _ = self.orphans.pop(p)
                self.ownerless.append(now - since)
        self.lag = max([self.lag, *(m["lag"] for m in seen["members"])])
        self._note_moves(seen, now)
        carried = [m["load"] for m in seen["members"] if not m["draining"]]
        if len(carried) >= 3 and sum(carried) > streams / 2:
            at_rest = now - self.unrest > REST_SECS
            self.evenness.append((max(carried) * len(carried) / sum(carried), at_rest))

    def _note_moves(self, seen: dict[str, Any], now: float) -> None:
        there = {(m["id"], m["draining"]) for m in seen["members"]}
        moving = {e["partition"] for e in seen["partitions"] if e["to"] is not None}
        draining = {m["id"] for m in seen["members"] if m["draining"]}
        new = [e for e in seen["partitions"] if e["partition"] in moving - self._moving and e["owner"] not in draining]
        taking = [m for m in seen["members"] if not m["draining"]]
        if new and taking:
            fair = seen["load"] / len(taking)
            self.shares += [sum(e["load"] for e in new if e["to"] == m["id"]) / max(fair, 1e-9) for m in taking]
        if there != self._there or moving or seen["without_owner"]:
            self.unrest = now
        self._there, self._moving = there, moving


class Fleet:
    """Four members, of which one is away now and then."""

    def __init__(self, server: NatsServer, settings: Callable[[], dict[str, str]], streams: int, logs: Path) -> None:
        self.server = server
        self.settings = settings
        self.streams = streams
        self.logs = logs
        self.stack = contextlib.AsyncExitStack()
        self.members: list[Daemon] = []
        self.everybody: list[Daemon] = []
        self.watched = Watched()
        self.r = random.Random(20_261_130)

    async def join(self) -> None:
        starting = Daemon(self.server.url, script=STUB, wait=False, LOG_LEVEL="DEBUG", **self.settings())
        daemon = await self.stack.enter_async_context(starting)
        self.everybody.append(daemon)
        await daemon.logged("ready", patience=PATIENCE)
        self.members.append(daemon)

    def pick(self) -> Daemon:
        daemon = self.members.pop(self.r.randrange(len(self.members)))
        assert daemon.process.returncode is None, f"a member ended by itself: {daemon.records[-3:]}"
        return daemon

    async def disturb(self, seconds: float, every: float) -> None:
        """Something happens every so often, in turn. There are three or four members.

        Not shortly before the end: a live stream whose `end` nobody hears is open until SESSION_TIMEOUT_SECS.
        """
        until = time.monotonic() + seconds - LAST_SECS
        for fault in itertools.cycle(("kill", "join", "drain", "join")):
            await asyncio.sleep(every)
            if time.monotonic() >= until:
                break
            self.watched.faults[fault] = self.watched.faults.get(fault, 0) + 1
            if fault == "join":
                await self.join()
            elif fault == "kill":
                victim = self.pick()
                joined = await victim.logged("joined the fleet")
                victim.process.kill()
                self.watched.dead[joined["member"]] = time.time()
            else:
                daemon = self.pick()
                daemon.terminate()
                assert await daemon.ended(PATIENCE) == 0
        assert [daemon.process.returncode for daemon in self.members] == [None] * len(self.members)

    async def watch(self) -> None:
        """Look all the time."""
        async with contextlib.aclosing(views(self.server.url)) as looks:
            async for seen in looks:
                self.watched.look(seen, self.streams)

    def write_logs(self) -> None:
        """Keep every member's log, for whoever asks why."""
        self.logs.mkdir(parents=True, exist_ok=True)
        for number, daemon in enumerate(self.everybody):
            lines = [json.dumps(record) for record in daemon.records]
            (self.logs / f"{number}.jsonl").write_text("\n".join([*lines, daemon.stderr]))

    def interruptions(self) -> tuple[list[float], list[float]]:
        """How long nobody worked on a partition: for each planned move, and for each take-over of a dead owner's."""
        told = [
            (datetime.fromisoformat(record["time"]).timestamp(), record["partition"], record["message"])
            for daemon in self.everybody
            for record in daemon.records
            if record["message"] in {"works on a partition", "drains a partition"}
        ]
        told += [(at, p, "died") for p, at in self.watched.taken_over]
        planned, after_death = [], []
        open_since: dict[int, tuple[float, str]] = {}
        for at, p, said in sorted(told):
            if said != "works on a partition":
                open_since[p] = at, said
            elif p in open_since:
                since, why = open_since.pop(p)
                (after_death if why == "died" else planned).append(at - since)
        return planned, after_death


async def speak(url: str, speech: Speech, streams: range, seconds: float, publish: Publish) -> float:
    """Send the recording over and over in real time, on many streams, each from a place of its own.

    Returns when it began, in seconds since 1970.
    """
    client = await nats.connect(url)
    size = int(speech.rate * CHUNK_SECS)
    chunks = [s16(speech.samples[at : at + size]) for at in range(0, len(speech.samples) - size, size)]
    began, at = time.monotonic(), time.time()
    count = int(seconds / CHUNK_SECS)
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
    return at


Stored = tuple[float, dict[str, Any]]  # when a record was stored, in seconds since 1970, and its body


async def records_until_ended(url: str, streams: int, patience: float) -> dict[str, list[Stored]]:
    """Every stored record by stream, once each stream has ended or patience has."""
    client = await nats.connect(url)
    subscription = await client.jetstream().pull_subscribe("transcript.>", stream="TRANSCRIPTS")
    deadline = time.monotonic() + patience
    found: dict[str, list[Stored]] = {}
    ended: set[str] = set()
    while len(ended) < streams and time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            for message in await subscription.fetch(500, timeout=2):
                body = json.loads(message.data)
                found.setdefault(body["stream"], []).append((message.metadata.timestamp.timestamp(), body))
                if body["type"] == "ended":
                    ended.add(body["stream"])
                await message.ack()
    await client.close()
    return found
