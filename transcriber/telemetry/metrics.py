"""The metrics of WIRE, read from the pipeline's figures when the exporter asks: counting costs the pipeline nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil
from opentelemetry.metrics import CallbackOptions, Observation

from transcriber.messages import SAMPLE_RATE, GapReason, Latency

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import Meter

    from transcriber.measurements import Snapshot, Tallies, Tally

# 5 ms, an empty queue's wait, to 60 s, three times the default promise.
BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000, 30_000, 60_000)

Observations = list[Observation]


class Metrics:
    """Registers every instrument of WIRE on `meter`."""

    def __init__(self, meter: Meter, tallies: Tallies, snapshot: Callable[[], Snapshot]) -> None:
        self._meter = meter
        self._tallies = tallies
        self._snapshot = snapshot
        self._gauges()
        self._counters()
        self._process()
        self._queue = self._histogram("queue", "Time a window waited for the worker")
        self._processing = self._histogram("processing", "Time the engine took for a window")
        self._end_to_end = self._histogram("end_to_end", "Time from try-put to publish")

    def record(self, stream: str, latency: Latency) -> None:
        """Take the latencies of one published window."""
        attributes = {"stream": self._tallies.audio.label(stream)}
        self._queue.record(latency.queue * 1000, attributes)
        self._processing.record(latency.processing * 1000, attributes)
        self._end_to_end.record(latency.end_to_end * 1000, attributes)

    def _histogram(self, name: str, description: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
        return self._meter.create_histogram(
            f"transcriber.{name}.latency_ms",
            unit="ms",
            description=description,
            explicit_bucket_boundaries_advisory=BUCKETS_MS,
        )

    def _gauges(self) -> None:
        snapshot = self._snapshot
        busy = _BusyShare(lambda: snapshot().busy)
        for name, unit, description, read in (
            ("queue.depth", "{job}", "Jobs waiting or running", lambda: snapshot().queue_depth),
            ("queue.capacity", "{job}", "Jobs that may wait or run", lambda: snapshot().queue_capacity),
            ("worker.busy", "1", "Share of the time since the last export in which the engine ran", busy),
            ("buffer.size", "s", "Audio received and not yet cut into windows", lambda: snapshot().buffered),
            ("rtf", "1", "Smoothed real-time factor of the engine", lambda: snapshot().rtf),
        ):
            self._meter.create_observable_gauge(f"transcriber.{name}", [_observe(read)], unit, description)

    def _counters(self) -> None:
        t = self._tallies
        for name, unit, description, read in (
            ("chunks.received", "{chunk}", "Messages taken from the source", _by_stream(t.chunks_received)),
            ("chunks.dropped", "{chunk}", "Chunks rejected, skipped or lost", _by_stream(t.chunks_dropped, "reason")),
            ("chunks.filtered", "{chunk}", "Chunks in which no speech was found", _by_stream(t.chunks_filtered)),
            ("samples.repaired", "{sample}", "Float samples made finite or clipped", _by_stream(t.samples_repaired)),
            ("jobs.enqueued", "{job}", "Windows put onto the queue", _by_stream(t.jobs_enqueued)),
            ("jobs.dropped", "{job}", "Windows that were not transcribed", _by_stream(t.jobs_dropped, "reason")),
            ("audio.seconds", "s", "Audio by what became of it", self._audio),
        ):
            self._meter.create_observable_counter(f"transcriber.{name}", [read], unit, description)

    def _audio(self, _options: CallbackOptions) -> Observations:
        observations = []
        for (stream, fate), samples in self._tallies.audio.by_stream().items():
            attributes = {"stream": stream, "fate": str(fate)}
            if isinstance(fate, GapReason):
                attributes |= {"fate": "gap", "reason": fate.value}
            observations.append(Observation(samples / SAMPLE_RATE, attributes))
        return observations

    def _process(self) -> None:
        process = psutil.Process()

        def cpu(_options: CallbackOptions) -> Observations:
            times = process.cpu_times()
            return [
                Observation(times.user, {"cpu.mode": "user"}),
                Observation(times.system, {"cpu.mode": "system"}),
            ]

        def memory(_options: CallbackOptions) -> Observations:
            return [Observation(process.memory_info().rss)]

        self._meter.create_observable_counter("process.cpu.time", [cpu], "s", "CPU time of this process")
        self._meter.create_observable_up_down_counter("process.memory.usage", [memory], "By", "Resident memory")


class _BusyShare:
    """Turns an ever growing running time into the share of the time since the last look."""

    def __init__(self, running: Callable[[], float]) -> None:
        self._running = running
        self._last = (time.monotonic(), running())

    def __call__(self) -> float:
        now, running = time.monotonic(), self._running()
        then, before = self._last
        self._last = (now, running)
        return min(1.0, max(0.0, (running - before) / (now - then))) if now > then else 0.0


def _observe(read: Callable[[], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _options: [Observation(read())]


def _by_stream(tally: Tally, key: str | None = None) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(_options: CallbackOptions) -> Observations:
        return [
            Observation(n, {"stream": stream} | ({key: str(value)} if key else {}))
            for (stream, value), n in tally.by_stream().items()
        ]

    return read
