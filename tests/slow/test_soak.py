"""Twenty minutes at 80 % of the engine's capacity: no audio is lost, and the daemon does not grow."""

from __future__ import annotations

import asyncio

import numpy as np
import psutil
import pytest

from benchmarks import calibrate
from benchmarks.load import Plan
from benchmarks.rig import Played, Rig, environ_for, rig
from transcriber.settings import load

LOAD = 0.8
WARM_UP_SECS, SECONDS, EVERY = 120, 1200, 5.0  # the first two minutes fill buffers and series; then it must be flat
NOISE_BYTES = 1_000_000  # what malloc gives back and takes again: half a dozen windows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(WARM_UP_SECS + SECONDS + 300)]


async def watched(bench: Rig, plan: Plan) -> tuple[Played, list[int], list[int]]:
    """Play the plan; resident bytes and open files of the daemon, from the end of the warm-up on."""
    process = psutil.Process(bench.daemon.pid)
    memory: list[int] = []
    files: list[int] = []
    async with bench.playing(plan) as played:
        await asyncio.sleep(WARM_UP_SECS)
        for _ in range(round(SECONDS / EVERY)):
            await asyncio.sleep(EVERY)
            memory.append(process.memory_info().rss)
            files.append(process.num_fds())
    await bench.end(played)
    return played, memory, files


async def test_memory_and_files_do_not_grow_in_twenty_minutes() -> None:
    """Resident memory rises by no more than it strays. Every window has its text."""
    environ = environ_for(None, WHISPER_THREADS="1")
    cost = await calibrate.cost(load(environ))
    streams, cycle = cost.streams(LOAD)
    async with rig(environ | {"MAX_STREAMS": str(streams)}) as bench:
        plan = Plan.new(streams, WARM_UP_SECS + SECONDS + 10, 100, cycle)
        played, memory, files = await bench.guard(watched(bench, plan))
    slope, at_first = np.polyfit(np.arange(len(memory)), memory, 1)
    strays = np.std(memory - (at_first + slope * np.arange(len(memory))))
    growth = slope * len(memory)
    latest = max(body["latency"]["end_to_end"] for _, body in played.of("final"))
    print(
        f"\n{streams} streams, {len(played.of('final'))} finals, latest {latest:.2f} s, gaps {dict(played.dropped())}\n"
        f"RSS {min(memory) / 1e6:.1f} to {max(memory) / 1e6:.1f} MB, {growth / 1e6:+.2f} MB in {SECONDS} s, "
        f"straying by {strays / 1e6:.2f} MB; files {min(files)} to {max(files)}"
    )
    assert growth <= max(3 * strays, NOISE_BYTES)
    assert np.median(files[len(files) // 2 :]) <= np.median(files[: len(files) // 2])
    assert max(files) <= files[0] + 2  # a probe or a reconnecting exporter, for a moment
    assert played.dropped() == {}
    assert sum(played.gap_seconds().values()) == 0
