"""Traces that join producer, window and result, and every kind of context that a chunk may carry."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as SpanStatus
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, StatusCode
from otlp import CONTEXTS, Run, attributes, recorded_run

from transcriber.domain.timeline import Origin, Window
from transcriber.telemetry.tracing import Tracing

TRACE, PARENT = CONTEXTS[0]
SAMPLED = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture(scope="module")
def run() -> Run:
    return recorded_run()


def span_of(run: Run, start: float) -> Span:
    """The span of the window that starts there."""
    return next(s for s in windows(run) if attributes(s.attributes)["transcriber.start"] == start)


def windows(run: Run) -> list[Span]:
    return [s for s in run.collector.spans if s.name == "window"]


def test_a_trace_joins_producer_window_and_result(run: Run) -> None:
    """The window's span is a child of its first chunk and links both chunks. The final names it."""
    message, body = next((m, b) for m, b in zip(run.client.raw, run.client.heard, strict=True) if b["type"] == "final")
    span = span_of(run, body["start"])
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == CONTEXTS[0]
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [*CONTEXTS[:2]]
    assert message.headers["traceparent"] == f"00-{CONTEXTS[0][0]}-{span.span_id.hex()}-01"
    assert span.kind == Span.SPAN_KIND_CONSUMER
    assert 0 < span.start_time_unix_nano < span.end_time_unix_nano
    told = {name.removeprefix("transcriber."): value for name, value in attributes(span.attributes).items()}
    assert told == {
        **{name: body[name] for name in ("stream", "session", "sequence", "start", "end")},
        **body["latency"],
        "outcome": "transcribed",
    }


def test_every_window_has_one_span_and_a_dropped_one_says_why(run: Run) -> None:
    """Finals and gaps have a span each. Those of gaps are errors that name the reason."""
    outcomes = Counter((attributes(s.attributes)["transcriber.outcome"], s.status.code) for s in windows(run))
    assert outcomes == {
        ("transcribed", SpanStatus.STATUS_CODE_UNSET): len(run.client.of("final")),
        ("queue_full", SpanStatus.STATUS_CODE_ERROR): len(run.client.of("gap")),
    }
    assert {s.trace_id.hex() for s in windows(run)} == {CONTEXTS[0][0], CONTEXTS[2][0]}


def test_window_span_holds_ingest_queue_decode_and_publish(run: Run) -> None:
    """They follow each other from its begin to its end, and last as long as the final says."""
    body = run.client.of("final")[0]
    span = span_of(run, body["start"])
    inside = {s.name: s for s in run.collector.spans if s.parent_span_id == span.span_id}
    parts = [inside.pop(name) for name in ("ingest", "queue", "decode", "publish")]
    assert not inside
    assert {s.trace_id for s in parts} == {span.trace_id}
    begins, ends = ([getattr(s, f"{at}_time_unix_nano") for s in parts] for at in ("start", "end"))
    assert [*begins, span.end_time_unix_nano] == [span.start_time_unix_nano, *ends]
    decode = parts[2]
    seconds = (decode.end_time_unix_nano - decode.start_time_unix_nano) / 1e9
    assert seconds == pytest.approx(body["latency"]["processing"], abs=0.01)


def test_a_latency_s_exemplar_is_its_windows_trace(run: Run) -> None:
    """A point in a histogram leads to its window."""
    ids = {s.span_id for s in windows(run)}
    for name in ("queue", "processing", "end_to_end"):
        exports = [export for export in run.collector.exports if f"transcriber.{name}.latency_ms" in export]
        histograms = [export[f"transcriber.{name}.latency_ms"].histogram for export in exports]
        exemplars = [e for h in histograms for p in h.data_points for e in p.exemplars]
        assert exemplars
        assert {e.span_id for e in exemplars} <= ids


def test_the_gap_line_in_the_log_names_the_windows_span(run: Run) -> None:
    """A line about dropped audio leads to the trace and its window."""
    line = next(r for r in run.daemon.records if r["message"] == "audio dropped")
    assert line["reason"] == "queue_full"
    span = span_of(run, line["start"])
    assert (line["trace_id"], line["span_id"]) == (span.trace_id.hex(), span.span_id.hex())
    assert line["trace_id"] == CONTEXTS[2][0]


class Bench:
    """`Tracing` on an exporter in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider.get_tracer("test"))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    @property
    def windows(self) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == "window"]


def window(*traceparents: str) -> Window:
    return Window(
        origin=Origin("radio", "s"),
        sequence=7,
        start=16_000,
        end=48_000,
        samples=np.zeros(32_000, np.float32),
        traceparents=traceparents,
    )


def test_the_span_begins_when_the_windows_first_audio_came() -> None:
    """Ingestion lasts from then until the window is queued. Windows that are dropped then have it, too."""
    bench = Bench()
    bench.tracing.start(replace(window(SAMPLED), arrived=time.monotonic() - 2.5)).end("queue_full", failed=True)
    spans = {span.name: span for span in bench.spans}
    ingest, whole = spans["ingest"], spans["window"]
    assert ingest.parent.span_id == whole.context.span_id
    assert ingest.start_time == whole.start_time
    assert (ingest.end_time - ingest.start_time) / 1e9 == pytest.approx(2.5, abs=0.2)


def test_a_window_whose_chunks_carry_no_trace_begins_one() -> None:
    """The span is a root without links; result and log name it."""
    bench = Bench()
    span = bench.tracing.start(window())
    span.end("transcribed")
    [found] = bench.windows
    assert found.parent is None
    assert found.links == ()
    assert span.ids == {"trace_id": f"{found.context.trace_id:032x}", "span_id": f"{found.context.span_id:016x}"}
    version, trace, parent, flags = span.traceparent.split("-")
    assert (version, trace, parent) == ("00", *span.ids.values())
    assert int(flags, 16) & 1  # sampled


@pytest.mark.parametrize("traceparent", [f"{SAMPLED}-tail", "junk", f"00-{'0' * 32}-{PARENT}-01", "ff" + SAMPLED[2:]])
def test_a_bad_traceparent_is_ignored(traceparent: str) -> None:
    """Only a W3C trace context of a known version becomes a parent or a link."""
    bench = Bench()
    bench.tracing.start(window(traceparent)).end("transcribed")
    [found] = bench.windows
    assert found.parent is None
    assert found.links == ()


def test_a_producer_that_does_not_sample_is_followed() -> None:
    """No span is exported for it. Its trace goes on through the result, still marked as not sampled."""
    bench = Bench()
    span = bench.tracing.start(window(f"00-{TRACE}-{PARENT}-00"))
    span.end("transcribed")
    assert bench.spans == ()
    assert span.traceparent == f"00-{TRACE}-{span.ids['span_id']}-00"


def test_a_window_of_many_chunks_links_them_all_in_order() -> None:
    """Up to the SDK's limit of 128 links none is lost. The first chunk is the parent."""
    bench = Bench()
    chunks = [f"{n:016x}" for n in range(1, 129)]
    bench.tracing.start(window(*(f"00-{TRACE}-{chunk}-01" for chunk in chunks))).end("transcribed")
    [found] = bench.windows
    assert [f"{link.context.span_id:016x}" for link in found.links] == chunks
    assert f"{found.parent.span_id:016x}" == chunks[0]


def test_the_span_of_a_failed_window_is_an_error_with_its_reason() -> None:
    """The reason is status and attribute. Known durations become attributes."""
    bench = Bench()
    bench.tracing.start(window(SAMPLED)).end("deadline", failed=True, queue=1.5)
    [found] = bench.windows
    assert (found.status.status_code, found.status.description) == (StatusCode.ERROR, "deadline")
    assert found.attributes["transcriber.outcome"] == "deadline"
    assert found.attributes["transcriber.queue"] == 1.5
    assert (found.attributes["transcriber.start"], found.attributes["transcriber.end"]) == (1.0, 3.0)


def test_trace_of_the_producer_passes_through_without_exporter() -> None:
    """The result still names the producer's context. Where there is none, none is invented."""
    tracing = Tracing(NoOpTracerProvider().get_tracer("test"))
    span = tracing.start(window(SAMPLED))
    span.end("transcribed")
    assert span.traceparent == SAMPLED
    assert span.ids == {"trace_id": TRACE, "span_id": PARENT}
    bare = tracing.start(window())
    assert bare.traceparent is None
    assert bare.ids == {}
