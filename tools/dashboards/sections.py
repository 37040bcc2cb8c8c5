"""The sections of both dashboards, for one stream and the daemons that hear it, or for everything.

Metrics have Prometheus' names, as in GET /metrics and, by default, from an OpenTelemetry collector.
"""

from __future__ import annotations

from dataclasses import dataclass

from panels import Json, Query, connection, heatmap, lines, signed, stat

WHICH = 'job=~"$job", instance=~"$instance"'
DAEMON = "job, instance"
HEARD = "transcriber_audio_seconds_total"
BY_INSTANCE = "{{instance}}"


@dataclass(frozen=True)
class Scope:
    """Which series a board is about. `stream`: the stream that metrics must match, in addition to job and instance."""

    stream: str = ""

    def of(self, metric: str, more: str = "") -> str:
        """A metric that has a stream."""
        matchers = ", ".join(part for part in (WHICH, self.stream, more) if part)
        return f"{metric}{{{matchers}}}"

    def audio(self, fate: str) -> str:
        return self.of(HEARD, f'fate="{fate}"')

    def by_daemon(self, expr: str) -> str:
        """Restrict a figure of whole daemons to those that hear the stream."""
        return f"{expr} and on ({DAEMON}) {self.audio('received')}" if self.stream else expr

    def gauge(self, metric: str) -> str:
        return self.by_daemon(f"{metric}{{{WHICH}}}")


def rate(series: str) -> str:
    return f"rate({series}[$__rate_interval])"


def in_range(series: str) -> str:
    return f"increase({series}[$__range])"


def quantile(share: float, buckets: str, by: str = "le") -> str:
    return f"histogram_quantile({share:g}, sum by ({by}) ({buckets}))"


def share_of_promise(scope: Scope) -> str:
    """The daemons' p95 over the whole time range as a share of their promise; the worst of them."""
    p95 = quantile(0.95, in_range(scope.of("transcriber_end_to_end_latency_ms_milliseconds_bucket")), f"{DAEMON}, le")
    promise = f"max by ({DAEMON}) (transcriber_max_latency_ms_milliseconds{{{WHICH}}})"
    return f"max({p95} / on ({DAEMON}) {promise})"


def share_lost(scope: Scope) -> str:
    return f"sum({in_range(scope.audio('gap'))}) / sum({in_range(scope.audio('received'))})"


def glance(scope: Scope) -> list[Json]:
    restarts = scope.by_daemon(f"resets(process_uptime_seconds{{{WHICH}}}[$__range])")
    return [
        stat(
            "Audio that became gaps",
            "Good is 0; a share above 1 % means that listeners miss words: the gaps below say for which reason.",
            "percentunit",
            share_lost(scope),
            (1e-9, "yellow"),
            (0.01, "red"),
        ),
        stat(
            "p95 as share of the promise",
            "Of the worst daemon: good is well below 100 %; near it the next burst of live audio is dropped.",
            "percentunit",
            share_of_promise(scope),
            (0.8, "yellow"),
            (1.0, "red"),
        ),
        stat(
            "Daemons away from NATS",
            "Good is 0; a daemon that is away hears nothing and publishes nothing.",
            "none",
            f"sum(1 - ({scope.gauge('transcriber_nats_connected_ratio')}))",
            (1, "red"),
        ),
        stat(
            "Restarts",
            "Good is 0, as live audio is lost meanwhile; a new pod is not counted, but is a new line under Uptime.",
            "none",
            f"sum({restarts})",
            (1, "yellow"),
            (3, "red"),
        ),
    ]


def latency(scope: Scope) -> list[Json]:
    kinds = {
        "end_to_end": (
            "End to end",
            "From try-put to publish: good is p95 well below the dashed promise; at the promise windows become gaps.",
        ),
        "queue": (
            "Waiting in the queue",
            "Good is a few ms; seconds mean that speech comes in faster than the engine works.",
        ),
        "processing": (
            "In the engine",
            "Good is flat; a rise at the same RTF means longer windows, a rise with it a slower CPU.",
        ),
    }
    panels = []
    for kind, (title, why) in kinds.items():
        buckets = scope.of(f"transcriber_{kind}_latency_ms_milliseconds_bucket")
        quantiles = [Query(quantile(q, rate(buckets)), f"p{q:.0%}".rstrip("%")) for q in (0.5, 0.95, 0.99)]
        promise = Query(f"min({scope.gauge('transcriber_max_latency_ms_milliseconds')})", "promise", limit=True)
        panels += [
            lines(title, why, "ms", *quantiles, *([promise] if kind == "end_to_end" else []), width=12),
            heatmap(
                f"{title}, every window",
                "Good is one narrow band; a second band above it are the windows that the quantiles hide.",
                "ms",
                f"sum by (le) (increase({buckets}[$__rate_interval]))",
            ),
        ]
    return panels


def fates(scope: Scope) -> list[Json]:
    colors = {"transcribed": "green", "silent": "blue", "gap": "red"}
    by_fate = {fate: f"sum({rate(scope.audio(fate))})" for fate in (*colors, "received")}
    settled = [Query(by_fate[fate], fate, color) for fate, color in colors.items()]
    return [
        lines(
            "Audio by fate",
            "Good is green and blue up to the dashed line of what came in; red is speech that has no text.",
            "suffix: s/s",
            *settled,
            Query(by_fate["received"], "received", "purple", limit=True),
            stack=True,
        ),
        lines(
            "Gaps by reason",
            "Good is 0; the page on operations says what to do about each reason.",
            "suffix: s/s",
            Query(f"sum by (reason) ({rate(scope.audio('gap'))})", "{{reason}}"),
            stack=True,
        ),
        lines(
            "Windows dropped by reason",
            "Good is only the green line of queued windows; queue_full and deadline need more workers.",
            "suffix: /s",
            Query(f"sum by (reason) ({rate(scope.of('transcriber_jobs_dropped_total'))})", "{{reason}}"),
            Query(f"sum({rate(scope.of('transcriber_jobs_enqueued_total'))})", "enqueued", "green"),
        ),
    ]


def chunks(scope: Scope) -> list[Json]:
    received = f"sum({rate(scope.of('transcriber_chunks_received_total'))})"
    filtered = f"sum({rate(scope.of('transcriber_chunks_filtered_total'))})"
    return [
        lines(
            "Chunks dropped by reason",
            "Good is only the green line; lag needs more CPU; other reasons are a producer's mistakes.",
            "suffix: /s",
            Query(f"sum by (reason) ({rate(scope.of('transcriber_chunks_dropped_total'))})", "{{reason}}"),
            Query(received, "received", "green"),
        ),
        lines(
            "Chunks that the VAD filtered",
            "Good is the source's share of silence; at 100 % the microphone is dead, at 0 % noise passes for speech.",
            "percentunit",
            Query(f"{filtered} / {received}", "filtered"),
        ),
        lines(
            "Looks, second passes, repairs",
            "Good is partials alone; repeated decodes mean doubtful audio, the other samples a bad source.",
            "suffix: /s",
            Query(f"sum({rate(scope.of('transcriber_partials_published_total'))})", "partials published"),
            Query(f"sum({rate(scope.of('transcriber_decodes_repeated_total'))})", "decodes repeated"),
            Query(f"sum({rate(scope.of('transcriber_samples_repaired_total'))})", "samples repaired"),
            Query(f"sum({rate(scope.of('transcriber_samples_unmixed_total'))})", "samples unmixed"),
            Query(f"sum({rate(scope.of('transcriber_samples_trimmed_total'))})", "samples trimmed"),
        ),
    ]


def worker(scope: Scope) -> list[Json]:
    return [
        lines(
            "Worker busy",
            "Share of the time in the engine: good is below 70 %; above it for long, add workers or threads.",
            "percentunit",
            Query(scope.gauge("transcriber_worker_busy_ratio"), BY_INSTANCE),
        ),
        lines(
            "Real-time factor",
            "Seconds of engine per second of audio: good is what it was at start; a rise means a slower CPU.",
            "none",
            Query(scope.gauge("transcriber_rtf_ratio"), BY_INSTANCE),
        ),
        lines(
            "On a GPU",
            "Good is 1 where a GPU was asked for; 0 there, or a fall to 0 after a restart, is a GPU that failed.",
            "none",
            Query(scope.gauge("transcriber_worker_gpu_ratio"), BY_INSTANCE),
        ),
        lines(
            "Lag of stored audio, seconds",
            "Age of the newest audio taken: good is near 0 (always 0 for live audio); a rise means too few workers.",
            "s",
            Query(scope.gauge("transcriber_lag_seconds"), BY_INSTANCE),
        ),
        lines(
            "Lag of stored audio, chunks",
            "What waits in JetStream: good is near 0 (always 0 for live audio), or falling after a start.",
            "suffix: chunks",
            Query(scope.gauge("transcriber_lag_chunks"), BY_INSTANCE),
        ),
        lines(
            "Audio in no window yet",
            "Good is at most one window (BUFFER_DURATION_SECS) per open stream; more means that windows do not close.",
            "s",
            Query(scope.gauge("transcriber_buffer_size_seconds"), BY_INSTANCE),
        ),
        signed(lines("Accounting difference", *_difference(scope))),
    ]


def _difference(scope: Scope) -> tuple[str, str, Query]:
    """Received less every fate and what is pending, per daemon; pending is known per daemon only."""
    heard, settled = (f"sum by ({DAEMON}) ({HEARD}{{{WHICH}, fate{test}}})" for test in ('="received"', '!="received"'))
    expr = f"{heard} - {settled} - sum by ({DAEMON}) (transcriber_audio_pending_seconds{{{WHICH}}})"
    why = (
        "received - transcribed - silent - gap - pending: good is 0, but for a spike where figures were read while a "
        "chunk came in; what stays is a defect of the program."
    )
    return why, "s", Query(scope.by_daemon(expr), BY_INSTANCE)


def process(scope: Scope) -> list[Json]:
    return [*_presence(scope), *_resources(scope)]


def _presence(scope: Scope) -> list[Json]:
    reconnects = f"transcriber_nats_reconnects_total{{{WHICH}}}"
    return [
        connection(
            "Connection to NATS",
            "Good is an unbroken green band; red is time in which nothing was heard.",
            scope.gauge("transcriber_nats_connected_ratio"),
            BY_INSTANCE,
        ),
        lines(
            "Reconnections",
            "Good is 0; again and again means an unsteady network, or a server that drops this client.",
            "none",
            Query(scope.by_daemon(f"increase({reconnects}[$__rate_interval])"), BY_INSTANCE),
        ),
        lines(
            "Uptime",
            "Good is a rising line; each fall to 0, and each new line that begins there, is a restart.",
            "s",
            Query(scope.gauge("process_uptime_seconds"), BY_INSTANCE),
        ),
        lines(
            "Restarts in the last 10 minutes",
            "Good is 0 outside of rollouts; a repeated one has its reason in the pod's last log lines.",
            "none",
            Query(scope.by_daemon(f"resets(process_uptime_seconds{{{WHICH}}}[10m])"), BY_INSTANCE),
        ),
    ]


def _resources(scope: Scope) -> list[Json]:
    cpu_time = f"process_cpu_time_seconds_total{{{WHICH}}}"
    return [
        lines(
            "CPU",
            "CPUs in use: good is below the pod's limit; at the limit the kernel throttles, and the RTF rises.",
            "suffix: CPU",
            Query(scope.by_daemon(f"sum by ({DAEMON}) ({rate(cpu_time)})"), BY_INSTANCE),
        ),
        lines(
            "Memory",
            "Resident memory: good is flat after the first minutes, and half of the pod's limit at most.",
            "bytes",
            Query(scope.gauge("process_memory_usage_bytes"), BY_INSTANCE),
        ),
    ]
