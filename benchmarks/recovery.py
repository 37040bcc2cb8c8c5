"""Measures how soon latency is bounded again after other programs take the CPU."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from benchmarks import calibrate
from benchmarks.load import Plan
from benchmarks.report import Report, kept_up, percentiles, seconds, table
from benchmarks.rig import Played, Rig, environ_for, rig
from transcriber.cli.programs import run_program
from transcriber.settings import load
from transcriber.worker.scheduling import cpu_quota

_QUIET_SHARE = 0.4  # of the time, before the others start: enough for the engine's speed to settle
_SLICE = 5.0  # seconds in a row of the table

MEASURED = {
    "hogs": "processes that compute without end, each in a session of its own, so that the scheduler gives each as "
    "much as the daemon",
    "engine": "latency.processing of the finals",
    "latest": "latency.end_to_end of the latest final: L_max bounds it",
    "deadline": "windows that were accepted and then were too late, by when their gap was published",
    "recovered": "from the hogs' start to the last such gap; all windows accepted after it were in time",
}


async def run(options: argparse.Namespace) -> Report:
    """Play one load, and start the hogs in the middle of it."""
    limit = {"TRANSCRIPTION_MAX_LATENCY_SECS": f"{options.max_latency:g}", "PARTIAL_INTERVAL_SECS": "0"}
    environ = environ_for(None, **options.whisper, **limit)
    settings = load(environ)
    cost = await calibrate.cost(settings)
    hogs = options.hogs or 2 * cpu_quota()
    chosen = {
        "model": settings.whisper.path.name.removesuffix(".bin"),
        "threads": settings.whisper.threads,
        "seconds": options.seconds,
        "load": options.load,
        "hogs": hogs,
        "max_latency": options.max_latency,
    }
    report = Report(benchmark="recovery", settings=chosen, measured=MEASURED)
    streams, cycle = cost.streams(options.load)
    environ["MAX_STREAMS"] = str(streams)
    async with rig(environ) as bench:
        plan = Plan.new(streams, options.seconds, 100, cycle)
        played, since = await bench.guard(_disturbed(bench, plan, hogs))
    _fill_in(report, played, since, options.max_latency)
    return report


def _fill_in(report: Report, played: Played, since: float, max_latency: float) -> None:
    """Add the load's figures before and after `since` to the report."""
    finals = [(at, body["latency"]) for at, body in played.decided("final")]
    before = [latency["processing"] for at, latency in finals if at < since]
    after = [latency["processing"] for at, latency in finals if at >= since]
    late = [at - since for at, body in played.decided("gap") if body["reason"] == "deadline" and at >= since]
    latest = max((latency["end_to_end"] for _, latency in finals), default=0.0)
    report.figures = {
        "engine_before": percentiles(before, 50),
        "engine_after": percentiles(after, 50),
        "deadline_gaps": len(late),
        "recovered": max(late, default=0.0),
        "latest": latest,
    }
    report.ratios = {"latest_over_max_latency": latest / max_latency}
    if before and after:
        report.ratios["engine_slower"] = _median(after) / _median(before)
    report.tables = [_table(played, since), f"recovered after {max(late, default=0.0):.1f} s"]
    report.notes += kept_up([("the load", played.publisher["late"]["p99"])])


async def _disturbed(bench: Rig, plan: Plan, hogs: int) -> tuple[Played, float]:
    """Play the plan. Returns what came of it, and when the hogs started."""
    async with bench.playing(plan) as played:
        await _until(played.begin + _QUIET_SHARE * plan.audio_seconds)
        since = time.monotonic()
        async with _hogs(hogs):
            await _until(played.begin + plan.audio_seconds)
    await bench.end(played)
    return played, since


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


@asynccontextmanager
async def _hogs(count: int) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(run_program("a hog", sys.executable, "-c", "while True: pass"))
        yield


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _table(played: Played, since: float) -> str:
    """Rows of `_SLICE` seconds, counted from the hogs' start."""
    told: dict[int, list[tuple[str, dict[str, Any]]]] = {}
    for kind in ("final", "gap"):
        for at, body in played.decided(kind):
            told.setdefault(int((at - since) // _SLICE), []).append((kind, body))
    rows = []
    for number, bodies in sorted(told.items()):
        latencies = [body["latency"] for kind, body in bodies if kind == "final"]
        reasons = [body["reason"] for kind, body in bodies if kind == "gap"]
        engine = [latency["processing"] for latency in latencies]
        rows.append(
            (
                f"{number * _SLICE:+.0f}",
                str(len(latencies)),
                str(reasons.count("deadline")),
                str(len(reasons) - reasons.count("deadline")),
                seconds(_median(engine) if engine else None),
                seconds(max((latency["end_to_end"] for latency in latencies), default=None)),
            )
        )
    return table(("seconds from", "finals", "deadline", "not accepted", "engine p50 s", "latest s"), rows)
