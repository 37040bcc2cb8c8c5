"""Measures what a second of audio costs outside Whisper, compared with the libraries alone."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import machine
from benchmarks.load import Plan
from benchmarks.report import Report, kept_up, table
from benchmarks.rig import Played, Rig, environ_for, rig
from benchmarks.speech import recording
from transcriber.cli.programs import Program, run_program, unless_ended, until_ready

if TYPE_CHECKING:
    from collections.abc import Mapping

_WARM_UP_SECS = 1.0  # of each load before the measurement: sessions open, and memory is touched
_LAG_SHARE = 0.25  # of the time; after the CPU was read, because the probe wakes the loop a hundred times a second
_IDLE_FIRST, _IDLE = 50, 200  # streams; the first ones include what is allocated once
_IDLE_SECS = 0.5  # of audio that an idle stream has sent
_SETTLE_SECS = 1.0  # until an idle stream's window is closed: STREAM_TIMEOUT_SECS and the daemon's tick
_LOST = ("lost_upstream", "lag", "undecodable")  # gaps from messages that were lost

MEASURED = {
    "cpu": "CPU time of the process (user and system, all threads), from one second after the load began, over seconds "
    "of audio published meanwhile in real time on all streams; no engine; no partials unless --partials is given, as "
    "an engine that takes no time would make one of every open window every second",
    "floor": "a process with only nats-py's receive, soxr and webrtcvad, on the same messages at the same time",
    "lag": "by how much sleeps of 10 ms on the daemon's event loop were too long, under the same load, after the CPU "
    "time was read",
    "idle": f"growth of the daemon's resident memory over {_IDLE} streams that sent {_IDLE_SECS:g} s of audio and then "
    "nothing, after their windows closed",
    "streams per core": "1000 ms over the daemon's CPU time for a second of audio; with more streams each one costs "
    "less, so measure with about as many as you plan for",
    "lost": "messages published, less those in the daemon's account of every session",
}


@dataclass(slots=True)
class _Cpu:
    """CPU seconds of the processes between two readings."""

    daemon: float = 0.0
    floor: float = 0.0


async def run(options: argparse.Namespace) -> Report:
    """Run every chunk length for its share of the time."""
    environ = environ_for(
        options.url,
        WHISPER_RTF="0.0001",  # so that the start measures nothing
        STREAM_TIMEOUT_SECS="0.5",
        MAX_STREAMS=str(options.streams + _IDLE + _IDLE_FIRST),
        **({} if options.partials else {"PARTIAL_INTERVAL_SECS": "0"}),
    )
    seconds = options.seconds / len(options.chunk_ms)
    chosen = {"streams": options.streams, "seconds_each": seconds, "rate": 48_000, "in_step": options.in_step}
    chosen["partials"] = options.partials
    report = Report(benchmark="ingest", settings=chosen, measured=MEASURED)
    async with rig(environ, "benchmarks.stub") as bench:
        idle = await bench.guard(_idle_bytes(bench))
        found = [await bench.guard(_measure(bench, options, seconds, ms)) for ms in options.chunk_ms]
    report.figures = {"idle_stream_bytes": idle, "loads": found}
    report.ratios = {f"daemon_over_floor_{f['chunk_ms']}_ms": f["daemon_ms"] / f["floor_ms"] for f in found}
    report.tables = [_table(found), f"memory per idle stream  {idle / 1000:.0f} kB"]
    report.notes += kept_up((f"{f['chunk_ms']} ms", f["publisher_late"]["p99"]) for f in found)
    return report


async def _idle_bytes(bench: Rig) -> float:
    """Resident memory of one idle stream."""
    played: list[Played] = []
    memory: list[int] = []
    for streams in (_IDLE_FIRST, _IDLE):
        plan = Plan.new(streams, _IDLE_SECS, 100, recording().seconds)
        async with bench.playing(plan) as one:
            pass
        played.append(one)
        await bench.until(one, "started", streams)
        await asyncio.sleep(_SETTLE_SECS)
        memory.append(machine.memory_bytes(bench.daemon.pid))
    for one in played:
        await bench.end(one)
    return (memory[1] - memory[0]) / _IDLE


async def _measure(bench: Rig, options: argparse.Namespace, seconds: float, chunk_ms: int) -> dict[str, Any]:
    """One load: CPU of the daemon and of the floor first, then the event loop's lag."""
    streams, lag_secs = options.streams, seconds * _LAG_SHARE
    cpu_secs = seconds - lag_secs
    length = _WARM_UP_SECS + seconds + chunk_ms / 1000
    plan = Plan.new(streams, length, chunk_ms, recording().seconds, in_step=options.in_step)
    cpu = _Cpu()
    async with _floor(bench.environ) as floor, bench.playing(plan) as played:
        await _sleep_until(played.begin + _WARM_UP_SECS)
        before = _Cpu(machine.cpu_seconds(bench.daemon.pid), machine.cpu_seconds(floor.pid))
        await _sleep_until(played.begin + _WARM_UP_SECS + cpu_secs)
        cpu.daemon = machine.cpu_seconds(bench.daemon.pid) - before.daemon
        cpu.floor = machine.cpu_seconds(floor.pid) - before.floor
        await floor.stop()  # it would take CPU from the next measurement
        os.kill(bench.daemon.pid, signal.SIGUSR1)
        await _sleep_until(played.begin + _WARM_UP_SECS + seconds)
        os.kill(bench.daemon.pid, signal.SIGUSR1)
        lag = await bench.log.take("loop lag")
    await bench.end(played)
    audio = streams * cpu_secs
    daemon_ms, floor_ms = cpu.daemon / audio * 1000, cpu.floor / audio * 1000
    published = streams * plan.chunks
    return {
        "chunk_ms": chunk_ms,
        "audio_seconds": audio,
        "daemon_ms": daemon_ms,
        "floor_ms": floor_ms,
        "streams_per_core": 1000 / daemon_ms,
        "messages": published,
        "lost": _lost(played),
        "lag": {key: lag[key] for key in ("p50", "p99", "max", "n")},
        "publisher_ms": played.publisher["cpu"] / (streams * plan.audio_seconds) * 1000,
        "publisher_late": played.publisher["late"],
    }


def _lost(played: Played) -> int:
    """Lost messages: known holes, and messages that were never received."""
    plan, gaps = played.plan, played.gap_seconds()
    missing = plan.streams * plan.audio_seconds - played.seconds("received") + sum(gaps[reason] for reason in _LOST)
    return round(missing * 1000 / plan.chunk_ms)


async def _sleep_until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


@asynccontextmanager
async def _floor(environ: Mapping[str, str]) -> AsyncIterator[Program]:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_line(line: str) -> None:
        if line == "ready" and not ready.done():
            ready.set_result(None)
        else:
            sys.stderr.write(f"floor: {line}\n")

    command = (sys.executable, "-P", "-m", "benchmarks.floor")
    async with run_program("the floor", *command, on_line=on_line, env=environ) as program:
        await unless_ended(until_ready(ready, program), program)
        yield program


def _table(found: list[dict[str, Any]]) -> str:
    head = ("chunks", "daemon ms/s", "floor ms/s", "ratio", "streams/core", "lost", "lag p50 ms", "p99 ms", "max ms")
    rows = [
        (
            f"{f['chunk_ms']} ms",
            f"{f['daemon_ms']:.3f}",
            f"{f['floor_ms']:.3f}",
            f"{f['daemon_ms'] / f['floor_ms']:.2f}",
            f"{f['streams_per_core']:.0f}",
            f"{f['lost']} of {f['messages']}",
            *(f"{f['lag'][key] * 1000:.2f}" for key in ("p50", "p99", "max")),
        )
        for f in found
    ]
    return table(head, rows)
