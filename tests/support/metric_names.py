"""Every metric: kind, unit, attributes. A gauge has no temporality; everything else must be cumulative."""

from __future__ import annotations

# The promised metrics: kind, unit, attributes. A gauge has no temporality; everything else must be cumulative.
PROMISED = {
    "transcriber.queue.depth": ("gauge", "{job}", set()),
    "transcriber.queue.capacity": ("gauge", "{job}", set()),
    "transcriber.worker.busy": ("gauge", "1", set()),
    "transcriber.buffer.size": ("gauge", "s", set()),
    "transcriber.worker.gpu": ("gauge", "1", set()),
    "transcriber.rtf": ("gauge", "1", set()),
    "transcriber.jobs.enqueued": ("counter", "{job}", {"stream"}),
    "transcriber.jobs.dropped": ("counter", "{job}", {"stream", "reason"}),
    "transcriber.chunks.received": ("counter", "{chunk}", {"stream"}),
    "transcriber.chunks.dropped": ("counter", "{chunk}", {"stream", "reason"}),
    "transcriber.chunks.filtered": ("counter", "{chunk}", {"stream"}),
    "transcriber.audio.seconds": ("counter", "s", {"stream", "fate"}),  # and `reason` where the fate is `gap`
    "transcriber.queue.latency_ms": ("histogram", "ms", {"stream"}),
    "transcriber.processing.latency_ms": ("histogram", "ms", {"stream"}),
    "transcriber.end_to_end.latency_ms": ("histogram", "ms", {"stream"}),
    "process.cpu.time": ("counter", "s", {"cpu.mode"}),
    "process.memory.usage": ("up-down counter", "By", set()),
}
OURS = {
    "process.uptime": ("gauge", "s", set()),
    "transcriber.audio.pending": ("gauge", "s", set()),
    "transcriber.max_latency_ms": ("gauge", "ms", set()),
    "transcriber.nats.connected": ("gauge", "1", set()),
    "transcriber.nats.reconnects": ("counter", "1", set()),
    "transcriber.lag.chunks": ("gauge", "{chunk}", set()),
    "transcriber.lag.seconds": ("gauge", "s", set()),
    "transcriber.samples.repaired": ("counter", "{sample}", {"stream"}),
    "transcriber.samples.unmixed": ("counter", "{sample}", {"stream"}),
    "transcriber.samples.trimmed": ("counter", "{sample}", {"stream"}),
    "transcriber.decodes.repeated": ("counter", "{window}", {"stream"}),
    "transcriber.partials.published": ("counter", "{message}", {"stream"}),
}
# Of members of a fleet alone.
FLEET = {
    "transcriber.fleet.members": ("gauge", "{member}", set()),
    "transcriber.fleet.partitions": ("gauge", "{partition}", set()),
    "transcriber.fleet.without_owner": ("gauge", "{partition}", set()),
    "transcriber.fleet.moves": ("counter", "{partition}", set()),
    "transcriber.fleet.load": ("gauge", "{stream}", set()),
    "transcriber.fleet.capacity": ("gauge", "{stream}", set()),
}
GATEWAY = {
    "transcriber.gateway.connections": ("gauge", "{connection}", set()),
    "transcriber.gateway.max_connections": ("gauge", "{connection}", set()),
    "transcriber.gateway.workers": ("gauge", "{worker}", set()),
    "transcriber.gateway.opened": ("counter", "{connection}", {"path"}),
    "transcriber.gateway.closed": ("counter", "{connection}", {"code"}),
    "transcriber.gateway.refused": ("counter", "{connection}", {"status"}),
    "transcriber.gateway.requests": ("counter", "{request}", {"path", "status"}),
    "transcriber.gateway.latency_ms": ("histogram", "ms", {"path"}),
    "transcriber.gateway.audio.seconds": ("counter", "s", set()),
    "transcriber.gateway.lost.seconds": ("counter", "s", set()),
    "transcriber.gateway.messages": ("counter", "{message}", {"direction"}),
    "transcriber.gateway.dropped": ("counter", "{message}", set()),
    "transcriber.gateway.pauses": ("counter", "1", set()),
}
# What OpenTelemetry's rules for Prometheus make of our units; one in braces is a remark, and makes nothing.
# https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/#metric-metadata-1
_SUFFIXES = {"s": "seconds", "ms": "milliseconds", "By": "bytes"}


def scraped_name(name: str) -> str:
    """Prometheus' name of a metric by OpenTelemetry's rules: the unit unless it is there already, then `_total`."""
    kind, unit, _ = (PROMISED | OURS | GATEWAY | FLEET)[name]
    words = name.replace(".", "_").split("_")
    suffix = "ratio" if (kind, unit) == ("gauge", "1") else _SUFFIXES.get(unit, "")
    words += [suffix] if suffix and suffix not in words else []
    return "_".join(words + ["total"] * (kind == "counter"))
