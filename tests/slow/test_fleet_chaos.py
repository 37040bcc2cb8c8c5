"""A fleet of four daemons and 200 streams for ten minutes: every 20 s a member is killed, joins or is drained.

pytest -m slow -s tests/slow/test_fleet_chaos.py

The engine is a stub: 200 streams of speech are more than two cores can transcribe. All else is real. FLEET_CHAOS_SECS,
FLEET_CHAOS_STREAMS and FLEET_CHAOS_EVERY_SECS make it shorter, smaller or wilder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import nats
import pytest
import soxr
from chaos import covered, durable, jetstream_server
from fleet_chaos import CHUNK_SECS, Fleet, Publish, Stored, records_until_ended, speak
from fleets import FLEET, member, set_up_fleet
from harness import Speech

from transcriber.protocol.partitions import LEASE_SECS, partition_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SECS = float(os.environ.get("FLEET_CHAOS_SECS", "600"))
STREAMS = int(os.environ.get("FLEET_CHAOS_STREAMS", "200"))
EVERY_SECS = float(os.environ.get("FLEET_CHAOS_EVERY_SECS", "20"))
RATE = 8000  # Hz
EXPECTED = int(SECS / CHUNK_SECS) * CHUNK_SECS  # seconds of each stream
STUB_SETTINGS = {"STUB_SECS": "0.005", "PARTIAL_INTERVAL_SECS": "0", "STATUS_INTERVAL_SECS": "60"}


async def stored(client: nats.NATS, stream: str, payload: bytes, headers: dict[str, str]) -> None:
    """As a durable producer: it knows of no partitions."""
    await client.publish(f"audio.{stream}", payload, headers=headers)


async def live(client: nats.NATS, stream: str, payload: bytes, headers: dict[str, str]) -> None:
    await client.publish(FLEET.subject_of(stream), payload, headers=headers)


async def run(fleet: Fleet, speech: Speech, publish: Publish) -> float:
    """Let everybody speak while members come and go; returns when they began."""
    narrow = soxr.resample(speech.samples, speech.rate, RATE, "HQ")  # 200 streams fill the disk otherwise
    speech = Speech(narrow, RATE, speech.rows)
    for _ in range(4):
        await fleet.join()
    await asyncio.sleep(3)
    watching = asyncio.create_task(fleet.watch())
    parts = 4  # connections of the load generator
    shares = [range(n * STREAMS // parts, (n + 1) * STREAMS // parts) for n in range(parts)]
    speaking = [speak(fleet.server.url, speech, share, SECS, publish) for share in shares]
    _, *began = await asyncio.gather(fleet.disturb(SECS, EVERY_SECS), *speaking)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    return min(began)


def check(fleet: Fleet) -> None:
    """What holds in either mode, on a machine that does nothing else."""
    watched = fleet.watched
    planned, after_death = fleet.interruptions()
    assert max(watched.ownerless) <= LEASE_SECS + 2
    assert max(after_death) <= 10
    assert max(planned) <= 1
    assert quantile([even for even, at_rest in watched.evenness if at_rest], 0.95) <= 1.25
    assert max(watched.shares) <= 1.25  # a fair share, and a part of a partition


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))] if values else float("nan")


def report(title: str, fleet: Fleet, rows: dict[str, float]) -> None:
    watched = fleet.watched
    planned, after_death = fleet.interruptions()
    everything, at_rest = [even for even, _ in watched.evenness], [even for even, rest in watched.evenness if rest]
    rows |= {
        "partitions taken over": len(watched.ownerless),
        "without owner in the plan, longest": max(watched.ownerless, default=0.0),
        "death to work of the next owner, longest": max(after_death, default=0.0),
        "planned moves": len(planned),
        "planned move, drain to work, p95": quantile(planned, 0.95),
        "planned move, drain to work, longest": max(planned, default=0.0),
        "longest lag that a member told": watched.lag,
        "busiest over mean at rest, samples": len(at_rest),
        "busiest over mean at rest, median": quantile(at_rest, 0.5),
        "busiest over mean at rest, p95": quantile(at_rest, 0.95),
        "busiest over mean at rest, most": max(at_rest, default=float("nan")),
        "busiest over mean at any time, median": quantile(everything, 0.5),
        "busiest over mean at any time, p95": quantile(everything, 0.95),
        "moved streams over fair share, most": max(watched.shares, default=float("nan")),
    }
    print(f"\n{title}: {STREAMS} streams, {SECS:g} s, {watched.faults}")
    for name, value in rows.items():
        print(f"  {name:42} {value:8.2f}")


def again(fleet: Fleet, found: dict[str, list[Stored]]) -> list[float]:
    """For each stream of a dead owner: the time from its death to the next text."""
    waits = []
    for partition, died in fleet.watched.taken_over:
        for stream, bodies in found.items():
            if partition_of(stream, FLEET.partitions) == partition:
                begun = min((at for at, b in bodies if at > died and b["type"] == "taken_over"), default=died)
                waits += [min(at - died for at, b in bodies if at > begun and b["type"] in {"final", "ended"})]
    return waits


async def test_durable_fleet_loses_and_doubles_nothing(tmp_path: Path, heldout: Speech) -> None:
    with jetstream_server(tmp_path) as server:
        await set_up_fleet(server.url)
        fleet = Fleet(server, lambda: durable(**member(**STUB_SETTINGS)), STREAMS, tmp_path / "logs")
        try:
            async with fleet.stack:
                await run(fleet, heldout, stored)
                found = await records_until_ended(server.url, STREAMS, 120.0)
        finally:
            fleet.write_logs()
    ended = {stream for stream, bodies in found.items() if bodies[-1][1]["type"] == "ended"}
    stories = [covered([body for _, body in found[stream]]) for stream in ended]
    lost, doubled = sum(s.lost + s.gaps for s in stories), sum(s.doubled for s in stories)
    received = sum(s.received for s in stories)
    waits = again(fleet, found)
    rows = {
        "streams that ended": len(ended),
        "seconds received": received / 16e3,
        "lost": lost / 16e3,
        "doubled": doubled / 16e3,
        "death to text again, streams": len(waits),
        "death to text again, longest": max(waits),
    }
    report("durable", fleet, rows)
    assert len(ended) == STREAMS
    assert received == pytest.approx(STREAMS * EXPECTED * 16_000, rel=1e-6)
    assert (lost, doubled) == (0, 0)
    assert max(waits) <= 15
    check(fleet)


def live_figures(heard: dict[str, list[dict[str, Any]]], fleet: Fleet, began: float) -> dict[str, float]:
    """What listeners heard: gaps, what of them lies before a death and after it, and text that came twice."""
    gaps = [body for bodies in heard.values() for body in bodies if body["type"] == "gap"]
    deaths = sorted(set(fleet.watched.dead.values()))
    before, after = [0.0], [0.0]
    for gap in gaps:
        for died in deaths:
            at = died - began
            if gap["start"] - CHUNK_SECS <= at <= gap["end"]:  # it sends a little ahead of the audio's own time
                before.append(at - gap["start"])
                after.append(gap["end"] - at)
    text_twice = text_in_gaps = 0.0
    for bodies in heard.values():
        spans = sorted((b["start"], b["end"]) for b in bodies if b["type"] == "final")
        text_twice += sum(max(0.0, a[1] - b[0]) for a, b in pairwise(spans))
        for gap in (b for b in bodies if b["type"] == "gap"):
            text_in_gaps += sum(max(0.0, min(end, gap["end"]) - max(start, gap["start"])) for start, end in spans)
    lengths = [body["end"] - body["start"] for body in gaps]
    return {
        "in gaps": sum(lengths),
        "gaps": len(gaps),
        "gap, longest": max(lengths, default=0.0),
        "of that before the death, longest": max(before),
        "of that after the death, longest": max(after),
        "gaps without a death": len(gaps) - len(after) + 1,
        "text twice": text_twice,
        "text in a gap as well": text_in_gaps,
    }


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
        fleet = Fleet(server, lambda: member(**STUB_SETTINGS), STREAMS, tmp_path / "logs")
        try:
            async with fleet.stack:
                began = await run(fleet, heldout, live)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(60):
                        await all_ended.wait()
        finally:
            fleet.write_logs()
        await client.close()
    (tmp_path / "heard.json").write_text(json.dumps([began, fleet.watched.dead, heard]))
    ended = [bodies[-1] for bodies in heard.values() if bodies[-1]["type"] == "ended"]
    received = sum(body["received"] for body in ended)
    figures = live_figures(heard, fleet, began)
    report("live", fleet, {"streams that ended": len(ended), "seconds received": received, **figures})
    assert len(ended) == STREAMS
    assert {round(body["received"], 3) for body in ended} == {round(EXPECTED, 3)}
    assert {body["pending"] for body in ended} == {0}
    assert figures["gaps without a death"] == figures["text twice"] == 0
    check(fleet)
