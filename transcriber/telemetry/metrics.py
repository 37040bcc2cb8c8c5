"""Registers the daemon's metrics. The exporter reads the pipeline's figures; the pipeline does no extra work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, Observation

from transcriber.domain.measurements import FleetFigures
from transcriber.domain.timeline import SAMPLE_RATE, GapReason
from transcriber.telemetry.process import observe_process

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter

    from transcriber.domain.measurements import Snapshot, Tallies, Tally
    from transcriber.domain.results import Latency

# From 5 ms, the wait in an empty queue, to 60 s, three times the default L_max.
BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000, 30_000, 60_000)

# Counters that alerts use are exported as 0 from a stream's first audio on. A counter that first appears at 1 hides its
# first increase from rate() and increase().
UNDONE = (GapReason.QUEUE_FULL, GapReason.DEADLINE, GapReason.ENGINE_ERROR, GapReason.SHUTDOWN)
FATES = ("received", "transcribed", "silent", *GapReason)

Observations = list[Observation]


class Metrics:
    """Registers every instrument on `meter`."""

    def __init__(self, meter: Meter, tallies: Tallies, snapshot: Callable[[], Snapshot]) -> None:
        self._meter = meter
        self._tallies = tallies
        self._snapshot = snapshot
        self._gauges()
        self._counters()
        if snapshot().fleet is not None:
            self._fleet()
        observe_process(meter)
        self._queue = self._histogram("queue", "Time a window waited for the worker")
        self._processing = self._histogram("processing", "Time the engine took for a window")
        buckets = _buckets_around(1000 * snapshot().max_latency)
        self._end_to_end = self._histogram("end_to_end", "Time from try-put to publish", buckets)

    def record(self, stream: str, latency: Latency, context: Context | None = None) -> None:
        """Record the latencies of one published window; `context` is its trace."""
        attributes = {"stream": self._tallies.audio.label(stream)}
        self._queue.record(latency.queue * 1000, attributes, context)
        self._processing.record(latency.processing * 1000, attributes, context)
        self._end_to_end.record(latency.end_to_end * 1000, attributes, context)

    def _histogram(self, name: str, description: str, buckets: Sequence[float] = BUCKETS_MS):  # type: ignore[no-untyped-def]  # noqa: ANN202
        return self._meter.create_histogram(
            f"transcriber.{name}.latency_ms",
            unit="ms",
            description=description,
            explicit_bucket_boundaries_advisory=buckets,
        )

    def _gauges(self) -> None:
        snapshot = self._snapshot
        busy = _BusyShare(lambda: snapshot().busy)
        for name, unit, description, read in (
            ("queue.depth", "{job}", "Jobs waiting or running", lambda: snapshot().queue_depth),
            ("queue.capacity", "{job}", "Jobs that may wait or run", lambda: snapshot().queue_capacity),
            ("worker.gpu", "1", "1 while CTranslate2 computes on a GPU, else 0", lambda: int(snapshot().gpu)),
            ("worker.busy", "1", "Share of the time since the last export in which the engine ran", busy),
            ("buffer.size", "s", "Audio received and not yet cut into windows", lambda: snapshot().buffered),
            ("audio.pending", "s", "Audio received and without a fate yet", lambda: snapshot().pending),
            ("max_latency_ms", "ms", "L_max: no result is published later", lambda: 1000 * snapshot().max_latency),
            ("nats.connected", "1", "1 while there is a connection to NATS, else 0", lambda: int(snapshot().connected)),
            ("lag.chunks", "{chunk}", "Chunks stored and not read yet (JetStream)", lambda: snapshot().lag_chunks),
            ("lag.seconds", "s", "Age of the newest stored audio taken (JetStream)", lambda: snapshot().lag_seconds),
            ("rtf", "1", "Smoothed real-time factor of the engine", lambda: snapshot().rtf),
        ):
            self._meter.create_observable_gauge(f"transcriber.{name}", [_observe(read)], unit, description)
        self._meter.create_observable_counter(
            "transcriber.nats.reconnects",
            [_observe(lambda: snapshot().reconnects)],
            "1",
            "Reconnections after a lost connection",
        )

    def _fleet(self) -> None:
        def fleet() -> FleetFigures:
            return self._snapshot().fleet or FleetFigures()

        for name, unit, description, read in (
            ("members", "{member}", "Members of the fleet", lambda: fleet().members),
            ("partitions", "{partition}", "Partitions that this member works on", lambda: fleet().partitions),
            ("without_owner", "{partition}", "Partitions that no member owns", lambda: fleet().without_owner),
            ("load", "{stream}", "Streams at work, over all members", lambda: fleet().load),
            ("capacity", "{stream}", "Streams that all members can carry", lambda: fleet().capacity),
        ):
            self._meter.create_observable_gauge(f"transcriber.fleet.{name}", [_observe(read)], unit, description)
        self._meter.create_observable_counter(
            "transcriber.fleet.moves",
            [_observe(lambda: fleet().moves)],
            "{partition}",
            "Partitions that this member has begun to work on",
        )

    def _counters(self) -> None:
        t, plain = self._tallies, self._by_stream
        chunks_dropped = self._by_stream(t.chunks_dropped, "reason", (GapReason.LAG,))
        jobs_dropped = self._by_stream(t.jobs_dropped, "reason", UNDONE)
        for name, unit, description, read in (
            ("chunks.received", "{chunk}", "Messages taken from the source", plain(t.chunks_received)),
            ("chunks.dropped", "{chunk}", "Chunks rejected, skipped or lost", chunks_dropped),
            ("chunks.filtered", "{chunk}", "Chunks in which no speech was found", plain(t.chunks_filtered)),
            ("samples.repaired", "{sample}", "Float samples made finite or clipped", plain(t.samples_repaired)),
            (
                "samples.unmixed",
                "{sample}",
                "Samples of one channel alone, as the others cancel it",
                plain(t.samples_unmixed),
            ),
            ("samples.trimmed", "{sample}", "Samples that were sent twice, and left out", plain(t.samples_trimmed)),
            ("jobs.enqueued", "{job}", "Windows put onto the queue", plain(t.jobs_enqueued)),
            ("jobs.dropped", "{job}", "Windows that were not transcribed", jobs_dropped),
            (
                "decodes.repeated",
                "{window}",
                "Windows decoded again because the text was doubtful",
                plain(t.decodes_repeated),
            ),
            ("partials.published", "{message}", "Partial texts of open windows", plain(t.partials_published)),
            ("audio.seconds", "s", "Audio by fate", self._audio),
        ):
            self._meter.create_observable_counter(f"transcriber.{name}", [read], unit, description)

    def _counts(self, tally: Tally, known: tuple[Hashable, ...]) -> dict[tuple[str, Hashable], int]:
        """Return the counts, with 0 for each known key of every stream that has sent audio."""
        streams = {stream for stream, _ in self._tallies.audio.by_stream()}
        return {(stream, key): 0 for stream in streams for key in known} | tally.by_stream()

    def _by_stream(
        self, tally: Tally, name: str | None = None, known: tuple[Hashable, ...] = (None,)
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """Return a callback that reads a tally; its key is exported as the attribute `name`."""

        def read(_options: CallbackOptions) -> Observations:
            return [
                Observation(n, {"stream": stream} | ({name: str(key)} if name else {}))
                for (stream, key), n in self._counts(tally, known).items()
            ]

        return read

    def _audio(self, _options: CallbackOptions) -> Observations:
        observations = []
        for (stream, fate), samples in self._counts(self._tallies.audio, FATES).items():
            attributes = {"stream": stream, "fate": str(fate)}
            if isinstance(fate, GapReason):
                attributes |= {"fate": "gap", "reason": fate.value}
            observations.append(Observation(samples / SAMPLE_RATE, attributes))
        return observations


class _BusyShare:
    """Turns the engine's total running time into its share of the time since the last export."""

    def __init__(self, running: Callable[[], float]) -> None:
        self._running = running
        self._last = (time.monotonic(), running())

    def __call__(self) -> float:
        now, running = time.monotonic(), self._running()
        then, before = self._last
        self._last = (now, running)
        return min(1.0, max(0.0, (running - before) / (now - then))) if now > then else 0.0


def _buckets_around(promise: float) -> list[float]:
    """Add a bucket that ends at the promised latency (ms), so that a quantile never shows text in time as late.

    There must be a bound above it too: a quantile beyond the last bound reads as that bound.
    """
    bounds = {*BUCKETS_MS, promise} if promise else set(BUCKETS_MS)
    return sorted(bounds | {2 * promise} if promise >= BUCKETS_MS[-1] else bounds)


def _observe(read: Callable[[], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _options: [Observation(read())]
