"""Makes one span per window: a child of its first chunk, linked to all its chunks, with child spans for its steps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from transcriber.domain.timeline import SAMPLE_RATE

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from transcriber.domain.timeline import Window

_PROPAGATOR = TraceContextTextMapPropagator()


class WindowSpan:
    """The span of one window, from its first audio's arrival to the publish.

    Its child spans: `ingest` until it is queued, if the arrival is known, then `queue`, `decode` and `publish`.
    """

    def __init__(self, span: Span, tracer: Tracer, arrived: int | None, queued: int) -> None:
        """`arrived` and `queued` in nanoseconds since 1970."""
        self._span = span
        self._tracer = tracer
        self._queued = queued
        if arrived is not None:
            self._part("ingest", arrived, queued)

    @property
    def traceparent(self) -> str | None:
        """The trace context for the result; None without a trace."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(self._span))
        return carrier.get("traceparent")

    @property
    def ids(self) -> dict[str, str]:
        """Trace id and span id as log fields; empty without a trace."""
        context = self._span.get_span_context()
        if not context.is_valid:
            return {}
        return {"trace_id": format(context.trace_id, "032x"), "span_id": format(context.span_id, "016x")}

    def end(self, outcome: str, *, failed: bool = False, **attributes: float) -> None:
        """End the span with the window's outcome. With `queue` and `processing` (seconds) it gets child spans."""
        self._span.set_attribute("transcriber.outcome", outcome)
        for name, value in attributes.items():
            self._span.set_attribute(f"transcriber.{name}", value)
        if failed:
            self._span.set_status(Status(StatusCode.ERROR, outcome))
        ended = time.time_ns()
        if {"queue", "processing"} <= attributes.keys():
            self._parts(attributes["queue"], attributes["processing"], ended)
        self._span.end(ended)

    def _parts(self, queue: float, processing: float, ended: int) -> None:
        """Add the child spans. Their times come from another clock, so they are limited to the window's span."""
        decode = min(ended, self._queued + round(queue * 1e9))
        publish = min(ended, decode + round(processing * 1e9))
        self._part("queue", self._queued, decode)
        self._part("decode", decode, publish)
        self._part("publish", publish, ended)

    def _part(self, name: str, begin: int, end: int) -> None:
        self._tracer.start_span(name, context=trace.set_span_in_context(self._span), start_time=begin).end(end)


class Tracing:
    """Starts window spans on `tracer`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start(self, window: Window) -> WindowSpan:
        """Open the span of a window that is about to be queued."""
        parents = [context_of(traceparent) for traceparent in window.traceparents]
        links = [Link(trace.get_current_span(parent).get_span_context()) for parent in parents]
        origin, queued = window.origin, time.time_ns()
        arrived = None if window.arrived is None else queued - round((time.monotonic() - window.arrived) * 1e9)
        span = self._tracer.start_span(
            "window",
            context=parents[0] if parents else None,
            kind=SpanKind.CONSUMER,
            links=links,
            start_time=queued if arrived is None else arrived,
            attributes={
                "transcriber.stream": origin.stream,
                "transcriber.session": origin.session,
                "transcriber.sequence": window.sequence,
                "transcriber.start": window.start / SAMPLE_RATE,
                "transcriber.end": window.end / SAMPLE_RATE,
            },
        )
        return WindowSpan(span, self._tracer, arrived, queued)


def context_of(traceparent: str | None) -> Context:
    """Return the context of a `traceparent`; an empty one without it."""
    return _PROPAGATOR.extract({"traceparent": traceparent} if traceparent else {})
