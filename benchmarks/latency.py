"""Measures how long after speech its text arrives."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import calibrate, speech
from benchmarks.load import Plan
from benchmarks.report import Report, kept_up, percentiles, seconds, table
from benchmarks.rig import PAUSE, Played, Rig, environ_for, rig
from transcriber.settings import load

# Seconds by which the VAD may end a window before the end of an utterance in the recording's notes. A window cut inside
# speech ends earlier than that, and the shortest pause is four times as long.
_SLACK = 0.2

MEASURED = {
    "final": "from the moment when an utterance's last sample was recorded (each chunk is published when its last "
    "sample would have been recorded) to the arrival of its final at a NATS client on this machine; includes the pause "
    "that ends a window",
    "partial": "from an utterance's first sample to the arrival of the first partial of its window",
    "load": "engine seconds a second that the bare engine needs for the windows of all streams, measured just before; "
    "each stream is the recording followed by silence",
}


async def run(options: argparse.Namespace) -> Report:
    """Run every load for its share of the time."""
    environ = environ_for(options.url, **options.whisper)
    settings = load(environ)
    cost = await calibrate.cost(settings)
    each = options.seconds / len(options.loads)
    chosen = {
        "model": settings.whisper.path.name.removesuffix(".bin"),
        "threads": settings.whisper.threads,
        "seconds_each": each,
        "chunk_ms": options.chunk_ms,
    }
    report = Report(benchmark="latency", settings=chosen, measured=MEASURED)
    environ["MAX_STREAMS"] = str(cost.streams(max(options.loads))[0])
    async with rig(environ) as bench:
        found = [await bench.guard(_measure(bench, cost, share, each, options.chunk_ms)) for share in options.loads]
    report.figures = {"engine_seconds_a_window": cost.a_window, "loads": found}
    first, last = found[0], found[-1]
    if len(found) > 1 and first["final"]["p99"] and last["final"]["p99"]:
        report.ratios = {
            f"final_p99_at_load_{last['load']:g}_over_load_{first['load']:g}": last["final"]["p99"]
            / first["final"]["p99"]
        }
    report.tables = [_table(found)]
    report.notes += kept_up((f"load {f['load']:g}", f["publisher_late"]["p99"]) for f in found)
    return report


async def _measure(bench: Rig, cost: calibrate.Cost, share: float, each: float, chunk_ms: int) -> dict[str, Any]:
    streams, cycle = cost.streams(share)
    played = await bench.play(Plan.new(streams, each, chunk_ms, cycle))
    finals, partials = delays(played)
    spoken = sum(len(spans) for spans in utterances(played).values())
    return {
        "load": share,
        "streams": streams,
        "utterances": spoken,
        "without_final": spoken - len(finals),
        "final": percentiles(finals, 50, 95, 99),
        "partial": percentiles(partials, 50, 95, 99),
        "dropped": dict(played.dropped()),
        "publisher_late": played.publisher["late"],
    }


def utterances(played: Played) -> dict[int, list[tuple[float, float]]]:
    """The utterances of each stream, in seconds of the stream; only those that their pause ended."""
    plan, material = played.plan, speech.recording()
    return {
        n: sorted(
            span
            for utterance in material.utterances
            for span in plan.spoken(n, utterance)
            if span[1] + PAUSE <= plan.audio_seconds
        )
        for n in range(plan.streams)
    }


def delays(played: Played) -> tuple[list[float], list[float]]:
    """Seconds from the end of each utterance to its final, and from its start to its first partial."""
    finals, partials = _by_stream(played, "final"), _by_stream(played, "partial")
    to_final: list[float] = []
    to_partial: list[float] = []
    for n, spans in utterances(played).items():
        began = played.begin + played.plan.begin(n)
        for start, end in spans:
            # A final must cover the utterance's end; a partial may be made in the middle of it.
            arrivals = [at for at, body in finals.get(n, ()) if body["start"] < end <= body["end"] + _SLACK]
            to_final += [min(arrivals) - began - end] if arrivals else []
            arrivals = [at for at, body in partials.get(n, ()) if body["start"] < end and body["end"] > start]
            to_partial += [min(arrivals) - began - start] if arrivals else []
    return to_final, to_partial


def _by_stream(played: Played, kind: str) -> dict[int, list[tuple[float, dict[str, Any]]]]:
    found: dict[int, list[tuple[float, dict[str, Any]]]] = {}
    for at, body in played.of(kind):
        found.setdefault(played.number(body), []).append((at, body))
    return found


def _table(found: list[dict[str, Any]]) -> str:
    head = (
        "load",
        "streams",
        "utterances",
        "no final",
        "final p50 s",
        "p95 s",
        "p99 s",
        "partial p50 s",
        "p95 s",
        "p99 s",
    )
    rows = [
        (
            f"{f['load']:.0%}",
            str(f["streams"]),
            str(f["utterances"]),
            str(f["without_final"]),
            *(seconds(f[kind][p]) for kind in ("final", "partial") for p in ("p50", "p95", "p99")),
        )
        for f in found
    ]
    return table(head, rows)
