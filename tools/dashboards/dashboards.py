"""Writes the Grafana dashboards of one stream and of the fleet: `python tools/dashboards/dashboards.py [folder]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from panels import Json, Query, dashboard, lines, ranking, stat, variable
from sections import (
    BY_INSTANCE,
    DAEMON,
    WHICH,
    Scope,
    chunks,
    fates,
    glance,
    in_range,
    latency,
    process,
    quantile,
    rate,
    worker,
)

FOLDER = Path(__file__).parents[2] / "k8s" / "monitoring" / "dashboards"
MOST = 10  # streams in a ranking
SETTLED = 'fate!="received"'
JOB = variable("job", "Job", "transcriber_queue_capacity", several=True)
INSTANCE = variable("instance", "Daemon", 'transcriber_queue_capacity{job=~"$job"}', several=True)
STREAM = variable("stream", "Stream", f"transcriber_audio_seconds_total{{{WHICH}}}", several=False)


def stream_board() -> Json:
    scope = Scope('stream="$stream"')
    return dashboard(
        "transcriber-stream",
        "transcriber: one stream",
        "What became of a stream's audio, how late its text is, and how the daemons are that hear it. A daemon's first "
        "100 streams have figures of their own; later ones share the name other.",
        [JOB, INSTANCE, STREAM],
        {
            "At a glance": [*glance(scope), *_account(scope)],
            "Latency": latency(scope),
            "What became of the audio": [*fates(scope), *chunks(scope)],
            "Daemons that hear this stream": [*_queue_of_each(scope), *worker(scope)],
            "Their processes": process(scope),
        },
    )


def _account(scope: Scope) -> list[Json]:
    unsettled = f"sum({scope.audio('received')}) - sum({scope.of('transcriber_audio_seconds_total', SETTLED)})"
    return [
        stat(
            "Audio received",
            "Good is the whole time range while the stream is on; less means that its producer was away.",
            "s",
            f"sum({in_range(scope.audio('received'))})",
        ),
        stat(
            "Audio without a fate yet",
            "Good is a few seconds: the open window and what is queued; more is queued work, or a window that hangs.",
            "s",
            unsettled,
            (60, "yellow"),
        ),
    ]


def _queue_of_each(scope: Scope) -> list[Json]:
    return [
        lines(
            "Queue depth against capacity",
            "Jobs of all streams: good is far below the dashed capacity; at capacity windows are dropped.",
            "suffix: jobs",
            Query(scope.gauge("transcriber_queue_depth"), BY_INSTANCE),
            Query(scope.gauge("transcriber_queue_capacity"), f"capacity of {BY_INSTANCE}", limit=True),
            width=24,
        ),
    ]


def fleet_board() -> Json:
    scope = Scope()
    return dashboard(
        "transcriber-fleet",
        "transcriber: fleet",
        "Whether all daemons keep their promise, which streams suffer, and whether there are enough workers.",
        [JOB, INSTANCE],
        {
            "At a glance": [*glance(scope), *_size(scope)],
            "Where to look": _worst(scope),
            "Latency of all streams": latency(scope),
            "What became of the audio": [*fates(scope), *chunks(scope)],
            "Daemons that share the streams": _shared(scope),
            "Work of the daemons": [*_queues(scope), *worker(scope)],
            "Their processes": process(scope),
        },
    )


def _size(scope: Scope) -> list[Json]:
    heard = f"sum by (stream) ({rate(scope.audio('received'))})"
    return [
        stat(
            "Daemons",
            "Good is as many as were deployed; fewer means that some are down, or not scraped.",
            "none",
            f"count({scope.gauge('transcriber_nats_connected_ratio')})",
        ),
        stat(
            "Streams heard now",
            "Good is as many as are on the air; fewer means that a producer is silent, or that nobody hears it.",
            "none",
            f"count({heard} > 0) or vector(0)",
        ),
    ]


def _worst(scope: Scope) -> list[Json]:
    p95 = quantile(0.95, in_range(scope.of("transcriber_end_to_end_latency_ms_milliseconds_bucket")), "stream, le")
    return [
        ranking(
            "Streams with the most gaps",
            "Good is 0 everywhere; one long bar is a stream that sends too much, many are too small a fleet.",
            "s",
            f"topk({MOST}, sum by (stream) ({in_range(scope.audio('gap'))}))",
            "{{stream}}",
            (1e-9, "yellow"),
            (60, "red"),
        ),
        ranking(
            "Streams with the latest text",
            "p95 from try-put to publish in the time range: good is well below the promise, and much the same for all.",
            "ms",
            f"topk({MOST}, {p95})",
            "{{stream}}",
        ),
    ]


def _shared(scope: Scope) -> list[Json]:
    """Panels that are about FLEET, and show 0 without it. Each member tells how it sees the whole."""

    def whole(what: str, aggregate: str = "max") -> str:
        return f"{aggregate}({scope.gauge(f'transcriber_fleet_{what}')}) or vector(0)"

    return [
        stat("Members", "Good is as many as were deployed with FLEET; fewer are at work.", "none", whole("members")),
        stat(
            "Partitions without owner",
            "Good is 0; nobody hears the streams of a partition without owner.",
            "none",
            whole("without_owner"),
            (1, "red"),
        ),
        lines(
            "Streams against capacity",
            "Of the whole fleet: good is below the dashed capacity; at capacity new live streams are refused.",
            "suffix: streams",
            Query(whole("load"), "streams"),
            Query(whole("capacity", "min"), "capacity", limit=True),
            width=12,
        ),
        lines(
            "Partitions of each member",
            "Good is flat and even; steps mean that members come and go.",
            "suffix: partitions",
            Query(f"{scope.gauge('transcriber_fleet_partitions')} or vector(0)", BY_INSTANCE),
            width=12,
        ),
        lines(
            "Partitions that change hands",
            "Good is 0; a burst is a member that came or went, and a steady rate is a fleet without rest.",
            "suffix: partitions",
            Query(f"sum({in_range(scope.of('transcriber_fleet_moves_total'))}) or vector(0)", "moves"),
            width=12,
        ),
    ]


def _queues(scope: Scope) -> list[Json]:
    depth, capacity = (scope.gauge(f"transcriber_queue_{what}") for what in ("depth", "capacity"))
    return [
        lines(
            "Queue depth against capacity",
            "Jobs in all daemons: good is far below the dashed capacity; at capacity windows are dropped.",
            "suffix: jobs",
            Query(f"sum({depth})", "depth"),
            Query(f"sum({capacity})", "capacity", limit=True),
            width=12,
        ),
        lines(
            "Queue fill of each daemon",
            "Good is below 50 %; a daemon that stays near 100 % drops while others may be idle: give it fewer streams.",
            "percentunit",
            Query(f"{depth} / on ({DAEMON}) {capacity}", BY_INSTANCE),
            width=12,
        ),
    ]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, board in (("stream", stream_board()), ("fleet", fleet_board())):
        (folder / f"{name}.json").write_text(json.dumps(board, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
