"""Every metric: kind, unit, attributes. A gauge has no temporality; everything else must be cumulative."""

from __future__ import annotations

# The promised metrics: kind, unit, attributes. A gauge has no temporality; everything else must be cumulative.
PROMISED = {
    "transcriber.queue.depth": ("gauge", "{job}", set()),
    "transcriber.queue.capacity": ("gauge", "{job}", set()),
    "transcriber.worker.busy": ("gauge", "1", set()),
    "transcriber.buffer.size": ("gauge", "s", set()),
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
    "transcriber.decodes.repeated": ("counter", "{window}", {"stream"}),
    "transcriber.partials.published": ("counter", "{message}", {"stream"}),
}
