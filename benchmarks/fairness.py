"""Measures what a stream that floods the daemon costs the others."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import calibrate
from benchmarks.latency import delays
from benchmarks.load import Plan
from benchmarks.report import Report, kept_up, percentiles, seconds, table
from benchmarks.rig import Played, Rig, environ_for, rig
from benchmarks.speech import recording
from transcriber.settings import load

_ALLOWED = 1.2  # times the p95 without the flood, plus one window's decoding: what a fair queue may cost

MEASURED = {
    "final": "as in `benchmarks latency`, for the ordinary streams only: each plays the recording in real time",
    "flood": "one more stream, which repeats the recording so many times faster than real time",
    "over allowed": f"p95 with the flood, over {_ALLOWED} times the p95 without it plus one window's decoding",
}


async def run(options: argparse.Namespace) -> Report:
    """Run the ordinary streams alone, then with the flood."""
    limit = {"TRANSCRIPTION_MAX_LATENCY_SECS": f"{options.max_latency:g}", "PARTIAL_INTERVAL_SECS": "0"}
    environ = environ_for(None, **options.whisper, **limit)
    settings = load(environ)
    cost = await calibrate.cost(settings)
    each = options.seconds / 2
    chosen = {
        "model": settings.whisper.path.name.removesuffix(".bin"),
        "threads": settings.whisper.threads,
        "seconds_each": each,
        "streams": options.streams,
        "flood": options.flood,
        "max_latency": options.max_latency,
    }
    report = Report(benchmark="fairness", settings=chosen, measured=MEASURED)
    async with rig(environ) as bench:
        alone = await bench.guard(bench.play(_ordinary(options.streams, each)))
        crowded, flood = await bench.guard(_flooded(bench, options, each))
    found = [_figures("alone", alone), _figures("with the flood", crowded), _figures("the flood itself", flood)]
    report.figures = {"engine_seconds_a_window": cost.a_window, "loads": found}
    before, after = found[0]["final"]["p95"], found[1]["final"]["p95"]
    if before and after:
        report.ratios["over_allowed"] = after / (_ALLOWED * before + cost.a_window)
    report.tables = [_table(found), f"engine seconds a window, alone  {cost.a_window:.3f}"]
    report.notes += kept_up((f["load"], f["publisher_late"]["p99"]) for f in found[:2])
    return report


def _ordinary(streams: int, length: float) -> Plan:
    return Plan.new(streams, length, 100, recording().seconds)


async def _flooded(bench: Rig, options: argparse.Namespace, length: float) -> tuple[Played, Played]:
    flood = Plan.new(1, length * options.flood, 100, recording().seconds, speed=options.flood)
    async with bench.playing(flood) as flooding, bench.playing(_ordinary(options.streams, length)) as ordinary:
        pass
    for played in (ordinary, flooding):
        await bench.end(played)
    return ordinary, flooding


def _figures(name: str, played: Played) -> dict[str, Any]:
    finals, _ = delays(played)
    return {
        "load": name,
        "streams": played.plan.streams,
        "final": percentiles(finals if played.plan.speed == 1 else [], 50, 95, 99),
        "finals": len(played.of("final")),
        "dropped": dict(played.dropped()),
        "publisher_late": played.publisher["late"],
    }


def _table(found: list[dict[str, Any]]) -> str:
    rows = [
        (
            f["load"],
            str(f["streams"]),
            str(f["finals"]),
            str(sum(f["dropped"].values())),
            *(seconds(f["final"][p]) for p in ("p50", "p95", "p99")),
        )
        for f in found
    ]
    return table(("streams", "count", "finals", "dropped", "final p50 s", "p95 s", "p99 s"), rows)
