"""Measures what is accepted and dropped, and how late text is, under more speech than the engine can decode."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import calibrate
from benchmarks.load import Plan
from benchmarks.report import Report, kept_up, percentiles, seconds, table
from benchmarks.rig import Played, environ_for, rig
from transcriber.settings import load

# Seconds between two wake-ups of the load generator. At a thousand a second it would take the core from the engine as
# often, which producers on other machines do not. A chunk of 200 ms goes out up to this much later.
_NAP = 0.005

MEASURED = {
    "load": "engine seconds a second that the bare engine needs for the same windows, measured before the first load "
    "while nothing else runs; the load generator wakes up at most every 5 ms",
    "alone": "engine seconds a window that the bare engine needs for the same windows while nothing else runs; the "
    "mean of just before and just after the load, because shared machines change from minute to minute",
    "goodput": "finals a second times `alone`: the share of the engine's capacity that became text in time; from L_max "
    "after the load began, when the queue is full, to its end",
    "accepted, dropped": "windows of the whole load that became a final, or a gap by its reason; without those that "
    "only the end of all streams closed",
    "engine": "latency.processing of the finals; if it is far above `alone`, other work takes the CPU",
    "busy": "engine seconds a second of these finals, over the same time as goodput; if goodput is less, the machine, "
    "which also makes the load, made the engine slower",
    "lateness": "latency.end_to_end of the finals: from try-put to publish; L_max bounds it",
}


async def run(options: argparse.Namespace) -> Report:
    """Run every load for its share of the time."""
    overrides = {"TRANSCRIPTION_MAX_LATENCY_SECS": f"{options.max_latency:g}", "AUDIO_SAMPLE_RATE": str(options.rate)}
    environ = environ_for(options.url, **options.whisper, **overrides)
    settings = load(environ)
    cost = await calibrate.cost(settings)
    each = options.seconds / len(options.loads)
    chosen = {
        "model": settings.whisper.path.name.removesuffix(".bin"),
        "threads": settings.whisper.threads,
        "seconds_each": each,
        "chunk_ms": options.chunk_ms,
        "rate": options.rate,
        "max_latency": options.max_latency,
    }
    report = Report(benchmark="overload", settings=chosen, measured=MEASURED)
    environ["MAX_STREAMS"] = str(cost.streams(max(options.loads))[0])
    found = []
    before = cost.a_window
    async with rig(environ) as bench:
        for share in options.loads:
            streams, cycle = cost.streams(share)
            plan = Plan.new(streams, each, options.chunk_ms, cycle, rate=options.rate, nap=_NAP)
            played = await bench.guard(bench.play(plan))
            after = (await bench.guard(calibrate.cost(settings))).a_window
            found.append({"load": share, **_figures(played, (before + after) / 2, options.max_latency)})
            before = after
    _fill_in(report, found, options.max_latency)
    return report


def _fill_in(report: Report, found: list[dict[str, Any]], max_latency: float) -> None:
    """Add the figures of all loads to the report."""
    report.figures = {"loads": found}
    worst = max((f["lateness"]["p100"] for f in found if f["lateness"]["n"]), default=None)
    if worst is not None:
        report.ratios["latest_over_max_latency"] = worst / max_latency
    for f in found:
        if f["load"] >= 1:
            report.ratios[f"goodput_over_capacity_at_load_{f['load']:g}"] = f["goodput"]
    report.tables = [_table(found)]
    report.notes += kept_up((f"load {f['load']:g}", f["publisher_late"]["p99"]) for f in found)


def _figures(played: Played, alone: float, max_latency: float) -> dict[str, Any]:
    """The figures of one load. `alone`: in seconds a window."""
    finals, dropped = played.decided("final"), played.dropped()
    return {
        "streams": played.plan.streams,
        "offered": len(finals) + dropped.total(),
        "accepted": len(finals),
        "dropped": dict(dropped),
        "alone": alone,
        **_rates(played, alone, max_latency),
        "lateness": percentiles([body["latency"]["end_to_end"] for _, body in finals], 50, 100),
        "engine": percentiles([body["latency"]["processing"] for _, body in finals], 50, 100),
        "audio": {fate: played.seconds(fate) for fate in ("received", "transcribed", "silent")}
        | {"gap": dict(played.gap_seconds())},
        "publisher_late": played.publisher["late"],
    }


def _rates(played: Played, alone: float, max_latency: float) -> dict[str, float]:
    """Goodput and busy share; over the second half if the load is shorter than twice L_max."""
    until = played.begin + played.plan.audio_seconds
    since = played.begin + min(max_latency, played.plan.audio_seconds / 2)
    took = [body["latency"]["processing"] for at, body in played.of("final") if since <= at < until]
    span = until - since
    return {"goodput": len(took) * alone / span, "busy": sum(took) / span}


def _table(found: list[dict[str, Any]]) -> str:
    reasons = sorted({reason for f in found for reason in f["dropped"]})
    head = (
        "load",
        "streams",
        "windows",
        "accepted",
        *reasons,
        "goodput",
        "busy",
        "lateness p50 s",
        "p100 s",
        "alone s",
        "engine p50 s",
        "p100 s",
    )
    rows = [
        (
            f"{f['load']:.0%}",
            str(f["streams"]),
            str(f["offered"]),
            str(f["accepted"]),
            *(str(f["dropped"].get(reason, 0)) for reason in reasons),
            f"{f['goodput']:.0%}",
            f"{f['busy']:.0%}",
            *(seconds(f["lateness"][p]) for p in ("p50", "p100")),
            seconds(f["alone"]),
            *(seconds(f["engine"][p]) for p in ("p50", "p100")),
        )
        for f in found
    ]
    return table(head, rows)
