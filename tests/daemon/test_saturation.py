"""Twenty times real time against a slow engine: drops are visible, no text is late, and memory stays flat."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import Any

import psutil
import pytest
import soxr
from flooding import flood
from harness import Client, Daemon, NatsServer, Speech, check_account, s16
from places import SUPPORT

STUB = SUPPORT / "stub_daemon.py"
MAX_LATENCY = 3.0


async def watch(daemon: Daemon, memory: list[int], answers: list[float]) -> None:
    """Twice a second: resident memory, and how long /readyz takes."""
    process = psutil.Process(daemon.process.pid)
    while True:
        begin = time.monotonic()
        assert await daemon.probe("/readyz") == 200
        answers.append(time.monotonic() - begin)
        memory.append(process.memory_info().rss)
        await asyncio.sleep(0.5)


def check_bounds(messages: list[dict[str, Any]]) -> None:
    """Finals and gaps never overlap."""
    bounds = sorted((m["start"], m["end"]) for m in messages)
    assert all(a[1] <= b[0] for a, b in pairwise(bounds))


ONE_BY_ONE = {"STUB_SECS": "0.4"}
IN_BATCHES = {"STUB_SECS": "0.6", "STUB_BATCH": "2", "STUB_DEAF": "1"}


@pytest.mark.parametrize(
    ("seconds", "engine"),
    [
        (8, ONE_BY_ONE),
        (8, IN_BATCHES),
        pytest.param(60, ONE_BY_ONE, marks=pytest.mark.slow),
        pytest.param(60, IN_BATCHES, marks=pytest.mark.slow),
    ],
    ids=["one-by-one", "batches-that-cannot-be-stopped", "longer", "longer-batches"],
)
async def test_a_flood_is_dropped_visibly_and_nothing_is_late(
    nats_server: NatsServer, client: Client, heldout: Speech, seconds: float, engine: dict[str, str]
) -> None:
    """Gaps add up to the missing audio, text comes within L_max, and the daemon stays responsive and small."""
    pcm = s16(soxr.resample(heldout.samples, heldout.rate, 48_000, "HQ"))
    memory: list[int] = []
    answers: list[float] = []
    async with Daemon(
        nats_server.url, script=STUB, TRANSCRIPTION_MAX_LATENCY_SECS=str(MAX_LATENCY), **engine
    ) as daemon:
        watching = asyncio.create_task(watch(daemon, memory, answers))
        frames = await flood(client, pcm, seconds)
        ended = await client.until_type("ended", patience=60)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert await daemon.stop() == 0

    finals, gaps = client.of("final"), client.of("gap")
    check_account(ended)
    check_bounds(finals + gaps)
    assert round(ended["received"] * 16_000) == round(frames / 3)
    missing = sum(round(g["end"] * 16_000) - round(g["start"] * 16_000) for g in gaps)
    assert missing == sum(round(s * 16_000) for s in ended["gap"].values())
    assert missing > 0.5 * ended["received"] * 16_000 * 0.5  # it really was a flood
    assert {g["reason"] for g in gaps} <= {"queue_full", "deadline"}
    assert daemon.summary["jobs_dropped"] == len(gaps)
    assert daemon.summary["jobs_enqueued"] >= len(finals) > 0
    latest = max(f["latency"]["end_to_end"] for f in finals)
    assert latest <= MAX_LATENCY
    assert max(answers) < 1.0
    third = len(memory) // 3
    grown = sum(memory[-third:]) / third - sum(memory[third : 2 * third]) / third
    print(
        f"\n{ended['received']:.0f} s of audio in {seconds} s: {len(finals)} windows transcribed, {len(gaps)} dropped\n"
        f"latest {latest:.2f} s of {MAX_LATENCY:g} s; /readyz at most {max(answers) * 1000:.0f} ms\n"
        f"RSS {min(memory) / 1e6:.1f} to {max(memory) / 1e6:.1f} MB, last third {grown / 1e6:+.1f} MB to the middle"
    )
    assert grown < 8e6


async def test_passes_that_cannot_be_stopped_break_no_promise(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """Each takes longer than L_max, and ends when it ends. Its window is a gap, and no text is published late."""
    slow = {"STUB_SECS": "1.5", "STUB_DEAF": "1", "TRANSCRIPTION_MAX_LATENCY_SECS": "1"}
    async with Daemon(nats_server.url, script=STUB, **slow) as daemon:
        await client.send(s16(heldout.samples[: 20 * heldout.rate]), audio_sample_rate=heldout.rate, audio_event="end")
        ended = await client.until_type("ended", patience=60)
        assert await daemon.stop() == 0
    check_account(ended)
    assert client.of("final") == []
    assert ended["gap"].keys() <= {"deadline", "queue_full"}
    assert "deadline" in ended["gap"]


async def test_flood_costs_only_the_stream_that_floods(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """A stream at twice real time next to it loses nothing and waits a turn. Evicted windows are settled once."""
    pcm = s16(soxr.resample(heldout.samples, heldout.rate, 48_000, "HQ"))
    modest = s16(heldout.cut(0, 4).samples)
    limits = {"STUB_SECS": "0.3", "TRANSCRIPTION_MAX_LATENCY_SECS": str(MAX_LATENCY)}
    async with Daemon(nats_server.url, script=STUB, **limits) as daemon:
        flooding = asyncio.create_task(flood(client, pcm, 60))
        await client.until(lambda body: body["type"] == "gap")  # it has filled what it can
        step = heldout.rate // 10 * 2  # 100 ms
        for start in range(0, len(modest), step):
            await client.send(modest[start : start + step], subject="audio.modest", audio_sample_rate=heldout.rate)
            await asyncio.sleep(0.05)
        await client.send(subject="audio.modest", audio_sample_rate=heldout.rate, audio_event="end")
        ended = await client.until_type("ended", stream="modest")
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        await client.send(audio_session="flood", audio_event="end")
        flooded = await client.until_type("ended", stream="s1")
        assert await daemon.stop() == 0
    check_account(ended)
    check_account(flooded)
    check_bounds(client.of("final", "gap", stream="s1"))
    assert client.of("gap", stream="modest") == []
    waits = [final["latency"]["queue"] for final in client.of("final", stream="modest")]
    assert len(waits) >= 3
    assert max(waits) < 2 * MAX_LATENCY / 3
    assert len(client.of("gap", stream="s1")) > 10


async def test_a_failing_engine_costs_single_windows(nats_server: NatsServer, client: Client, heldout: Speech) -> None:
    """Every third window fails. Exactly those become gaps with engine_error, and the thread goes on."""
    part = heldout.cut(0, 12)
    every_third = {"STUB_FAIL_EVERY": "3", "PARTIAL_INTERVAL_SECS": "0", "WHISPER_RTF": "0.1"}
    async with Daemon(nats_server.url, script=STUB, **every_third) as daemon:
        pcm = s16(part.samples)
        for start in range(0, len(pcm), 3200):
            await client.send(pcm[start : start + 3200], audio_sample_rate=16_000, audio_session="x")
        await client.send(audio_session="x", audio_event="end", audio_sample_rate=16_000)
        ended = await client.until_type("ended")
        assert await daemon.stop() == 0
    failed = client.of("gap")
    check_account(ended)
    assert {g["reason"] for g in failed} == {"engine_error"}
    # The warm-up pass was call 1, so calls 3, 6, 9 ... are windows 2, 5, 8 ...
    assert len(failed) == (len(client.of("final")) + len(failed) + 1) // 3
    assert any("the stub was told to fail" in r.get("detail", "") for r in daemon.records)
