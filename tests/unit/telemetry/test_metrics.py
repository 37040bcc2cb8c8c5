"""The promised metrics: as the real daemon exports them, and with figures that a test sets."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from metric_names import OURS, PROMISED
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from otlp import Attributes, Run, data, points, recorded_run, total

from transcriber.domain.measurements import NAMED_STREAMS, OTHERS, Snapshot, Tallies
from transcriber.domain.results import Latency
from transcriber.domain.timeline import GapReason
from transcriber.telemetry.metrics import Metrics

BUCKETS = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000, 30_000, 60_000]  # ms: 5 ms to 60 s


@pytest.fixture(scope="module")
def run() -> Run:
    return recorded_run()


def test_collector_receives_every_promised_metric_and_no_other(run: Run) -> None:
    """All promised names arrive, and no other name of ours."""
    assert run.collector.metrics.keys() >= PROMISED.keys()
    assert {n for n in run.collector.metrics if n.startswith("transcriber.")} <= PROMISED.keys() | OURS.keys()


@pytest.mark.parametrize("name", [*PROMISED, *OURS])
def test_a_metric_has_its_kind_unit_temporality_and_attributes(run: Run, name: str) -> None:
    """Each metric is what an alert rule written against PROMISED expects."""
    kind, unit, keys = (PROMISED | OURS)[name]
    metric = run.collector.metrics[name]
    assert metric.unit == unit
    assert metric.description
    assert metric.WhichOneof("data") == {"counter": "sum", "up-down counter": "sum"}.get(kind, kind)
    if kind != "gauge":
        assert data(metric).aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    if metric.HasField("sum"):
        assert metric.sum.is_monotonic == (kind == "counter")
    if kind == "histogram":
        admission = [120_000, 240_000] if name == "transcriber.end_to_end.latency_ms" else []  # that of this run
        assert [list(p.explicit_bounds) for p in metric.histogram.data_points] == [BUCKETS + admission]
    assert points(metric)
    for found, _ in points(metric):
        gap = {"reason"} if ("fate", "gap") in found else set()
        assert {key for key, _ in found} == keys | gap


def test_counters_never_fall(run: Run) -> None:
    """Counters are cumulative: over all exports of the run, no series goes down or away."""
    assert len(run.collector.exports) > 3
    before: dict[tuple[str, Attributes], float] = {}
    for export in run.collector.exports:
        now = {(n, a): v for n, m in export.items() if m.HasField("sum") and m.sum.is_monotonic for a, v in points(m)}
        assert all(now[series] >= value for series, value in before.items())
        before = now


def test_counters_match_what_was_published(run: Run) -> None:
    """Chunks and jobs in the metrics match the input, and the finals and gaps of the output."""
    value, client = run.collector.value, run.client
    received = {s: value("transcriber.chunks.received", stream=s) for s in ("traced", "quiet", "bad", "invalid")}
    assert received == {"traced": 3, "quiet": 2, "bad": 1, "invalid": 1}
    assert value("transcriber.chunks.dropped") == 2
    assert value("transcriber.chunks.dropped", stream="bad", reason="partial_frame") == 1
    assert value("transcriber.chunks.dropped", stream="invalid", reason="stream") == 1
    assert value("transcriber.chunks.filtered", stream="quiet") == 2
    assert value("transcriber.samples.repaired", stream="quiet") == 3
    finals, gaps = client.of("final"), client.of("gap")
    assert len(finals) >= 2
    assert len(gaps) >= 1
    assert value("transcriber.jobs.enqueued", stream="traced") == len(finals)
    assert value("transcriber.jobs.dropped", stream="traced", reason="queue_full") == len(gaps)
    assert value("transcriber.jobs.dropped") == len(gaps)


@pytest.mark.parametrize("stream", ["traced", "quiet"])
def test_audio_seconds_are_the_published_account(run: Run, stream: str) -> None:
    """Seconds by fate are those of the `ended` event, and add up to the received ones."""

    def seconds(**wanted: str) -> float:
        return run.collector.value("transcriber.audio.seconds", stream=stream, **wanted)

    [ended] = run.client.of("ended", stream=stream)
    fates = {fate: seconds(fate=fate) for fate in ("received", "transcribed", "silent")}
    assert fates == {fate: ended[fate] for fate in fates}
    gaps = {reason: seconds(fate="gap", reason=reason) for reason in GapReason}
    assert {reason: length for reason, length in gaps.items() if length} == ended["gap"]
    assert fates["received"] > 0
    assert fates["received"] == pytest.approx(fates["transcribed"] + fates["silent"] + seconds(fate="gap"))


def test_latencies_are_those_of_the_finals(run: Run) -> None:
    """Each histogram has one value a final. Their sum is that of the latencies in the finals."""
    finals = run.client.of("final")
    for kind in ("queue", "processing", "end_to_end"):
        [point] = run.collector.metrics[f"transcriber.{kind}.latency_ms"].histogram.data_points
        assert point.count == sum(point.bucket_counts) == len(finals)
        assert point.sum == pytest.approx(sum(body["latency"][kind] for body in finals) * 1000)


def test_gauges_follow_the_worker_and_the_process(run: Run) -> None:
    """The queue has the capacity that was set, all is empty in the end, and the worker was busy."""
    value = run.collector.value
    assert value("transcriber.queue.capacity") == 1
    assert value("transcriber.queue.depth") == 0
    assert value("transcriber.buffer.size") == 0
    assert 0 < value("transcriber.rtf") < 100
    busy = [total(export, "transcriber.worker.busy") for export in run.collector.exports]
    assert max(busy) > 0
    assert all(0 <= share <= 1 for share in busy)
    assert {a for found, _ in points(run.collector.metrics["process.cpu.time"]) for a in found} == {
        ("cpu.mode", "user"),
        ("cpu.mode", "system"),
    }
    assert value("process.cpu.time", **{"cpu.mode": "user"}) > 0.1
    assert 2**24 < value("process.memory.usage") < 2**36


IDLE = Snapshot(queue_depth=0, queue_capacity=4, busy=0.0, rtf=0.1, buffered=0.0)


class Bench:
    """`Metrics` on a reader in memory, with figures that a test sets."""

    def __init__(self, snapshot: Snapshot = IDLE) -> None:
        self.tallies = Tallies()
        self.snapshot = snapshot
        self._reader = InMemoryMetricReader()
        meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.metrics = Metrics(meters.get_meter("test"), self.tallies, lambda: self.snapshot)

    def read(self, name: str) -> list[Any]:
        """The points of one metric, collected now."""
        collected = self._reader.get_metrics_data()
        found = [m for r in collected.resource_metrics for s in r.scope_metrics for m in s.metrics if m.name == name]
        return list(found[0].data.data_points) if found else []


def test_gauges_show_the_snapshot_of_the_moment() -> None:
    """They are read when the exporter asks, not when something happens."""
    bench = Bench()
    bench.snapshot = Snapshot(
        queue_depth=3,
        queue_capacity=5,
        busy=1.0,
        rtf=0.25,
        buffered=7.5,
        pending=8.5,
        max_latency=20.0,
        connected=True,
        reconnects=2,
        lag_chunks=12,
        lag_seconds=1.5,
    )
    wanted = {
        "queue.depth": 3,
        "queue.capacity": 5,
        "rtf": 0.25,
        "buffer.size": 7.5,
        "audio.pending": 8.5,
        "max_latency_ms": 20_000,
        "nats.connected": 1,
        "nats.reconnects": 2,
        "lag.chunks": 12,
        "lag.seconds": 1.5,
    }
    assert {name: bench.read(f"transcriber.{name}")[0].value for name in wanted} == wanted
    bench.snapshot = IDLE
    assert bench.read("transcriber.queue.depth")[0].value == 0
    assert bench.read("transcriber.nats.connected")[0].value == 0


def test_busy_is_the_engines_share_since_the_last_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 s of engine in 10 s are 0.3. The share stays in [0, 1], even when a long job counts only at its end."""
    now = 100.0
    monkeypatch.setattr("transcriber.telemetry.metrics.time", SimpleNamespace(monotonic=lambda: now))
    bench = Bench()
    shares = []
    for seconds, busy in ((10, 3.0), (10, 3.0), (5, 23.0), (10, 22.0), (0, 22.0)):
        now += seconds
        bench.snapshot = replace(IDLE, busy=busy)
        shares.append(bench.read("transcriber.worker.busy")[0].value)
    assert shares == [pytest.approx(0.3), 0.0, 1.0, 0.0, 0.0]


def test_a_latency_lands_in_the_bucket_that_ends_at_or_above_it() -> None:
    """5 ms is in the first bucket, 60 s in the last bounded one, more in the open one. Sums are in milliseconds."""
    bench = Bench()
    for seconds in (0.005, 60.0, 61.0):
        bench.metrics.record("radio", Latency(seconds, 0.02, 0.3))
    counts = list(bench.read("transcriber.queue.latency_ms")[0].bucket_counts)
    assert counts == [1, *[0] * (len(BUCKETS) - 2), 1, 1]
    assert bench.read("transcriber.processing.latency_ms")[0].sum == pytest.approx(60)
    assert bench.read("transcriber.end_to_end.latency_ms")[0].sum == pytest.approx(900)


@pytest.mark.parametrize(("seconds", "more"), [(20, []), (3, [3000]), (60, [120_000]), (90, [90_000, 180_000])])
def test_a_bucket_ends_at_the_promise_and_another_one_above_it(seconds: float, more: list[float]) -> None:
    """So a quantile says exactly whether the promise was kept, for any promise."""
    bench = Bench(replace(IDLE, max_latency=seconds))
    bench.metrics.record("radio", Latency(0.1, 0.2, 0.3))
    assert list(bench.read("transcriber.end_to_end.latency_ms")[0].explicit_bounds) == sorted(BUCKETS + more)
    assert list(bench.read("transcriber.queue.latency_ms")[0].explicit_bounds) == BUCKETS


def test_drops_are_zero_before_the_first_one() -> None:
    """A counter that first appears at 1 would hide its first increase from rate(). So every active stream has zeros."""
    bench = Bench()
    assert bench.read("transcriber.jobs.dropped") == []
    bench.tallies.audio.add("radio", "received", 16_000)
    zeros = {p.attributes["reason"]: p.value for p in bench.read("transcriber.jobs.dropped")}
    assert zeros == {"queue_full": 0, "deadline": 0, "engine_error": 0, "shutdown": 0}
    assert {p.attributes["reason"] for p in bench.read("transcriber.chunks.dropped")} == {"lag"}
    seconds = {tuple(p.attributes.values()): p.value for p in bench.read("transcriber.audio.seconds")}
    assert seconds.pop(("radio", "received")) == 1
    assert set(seconds.values()) == {0}
    assert {reason for _, fate, reason in (s for s in seconds if len(s) == 3) if fate == "gap"} == set(GapReason)

    bench.tallies.jobs_dropped.add("radio", GapReason.DEADLINE)
    assert {p.attributes["reason"]: p.value for p in bench.read("transcriber.jobs.dropped")} == zeros | {"deadline": 1}


def test_series_stay_bounded_however_many_streams_there_are() -> None:
    """Streams after the named ones share one series, in counters and histograms. Nothing is lost."""
    bench = Bench()
    streams = [f"s{n}" for n in range(5 * NAMED_STREAMS)]
    for stream in streams:
        bench.tallies.audio.add(stream, "received", 16_000)
        bench.tallies.jobs_enqueued.add(stream)
        bench.metrics.record(stream, Latency(0.1, 0.1, 0.1))
    for name, read in (("jobs.enqueued", "value"), ("queue.latency_ms", "count")):
        found = {p.attributes["stream"]: getattr(p, read) for p in bench.read(f"transcriber.{name}")}
        assert found.keys() == {*streams[:NAMED_STREAMS], OTHERS}
        assert found[OTHERS] == len(streams) - NAMED_STREAMS
        assert sum(found.values()) == len(streams)
