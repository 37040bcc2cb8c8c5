"""Metrics and spans of a gateway. The exporter reads its figures; the gateway does no extra work for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from transcriber.telemetry.metrics import BUCKETS_MS
from transcriber.telemetry.process import observe_process
from transcriber.telemetry.providers import Providers, TelemetryOptions
from transcriber.telemetry.tracing import context_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Span

_PROPAGATOR = TraceContextTextMapPropagator()
_OWN_CODES = range(1000, 1016)  # close codes that a standard defines
_SERVER_ERROR = 500


class Figures(Protocol):
    """What a gateway counts, and what it knows."""

    connections: int
    max_connections: int
    audio: float
    lost: float
    messages_in: int
    messages_out: int
    dropped: int
    pauses: int

    @property
    def opened(self) -> Mapping[str, int]: ...
    @property
    def closed(self) -> Mapping[int, int]: ...
    @property
    def refused(self) -> Mapping[int, int]: ...
    @property
    def requests(self) -> Mapping[tuple[str, int], int]: ...


class Surroundings(Protocol):
    """NATS and the workers, as a gateway sees them."""

    @property
    def connected(self) -> bool: ...
    @property
    def reconnects(self) -> int: ...
    @property
    def count(self) -> int: ...


class CallSpan:
    """The span of a request or of a WebSocket. `traceparent` is for what is done for it; None without a trace."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: Span | None, traceparent: str | None) -> None:
        self._span = span
        self.traceparent = traceparent

    def end(self, status: int) -> None:
        """End it with the status of HTTP, or with a close code."""
        if self._span is None:
            return
        self._span.set_attribute("http.response.status_code", status)
        if _SERVER_ERROR <= status < _OWN_CODES.start:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


_NO_SPAN = CallSpan(None, None)  # one for all: thousands of clients hold one


class GatewayMetrics:
    """Registers every instrument on `meter`."""

    def __init__(self, meter: Meter, figures: Figures, surroundings: Surroundings) -> None:
        _gauges(meter, figures, surroundings)
        _counters(meter, figures, surroundings)
        observe_process(meter)
        self._latency = meter.create_histogram(
            "transcriber.gateway.latency_ms",
            unit="ms",
            description="Time from a request's head to the end of its answer",
            explicit_bucket_boundaries_advisory=BUCKETS_MS,
        )

    def record(self, path: str, seconds: float) -> None:
        """Record how long a request took."""
        self._latency.record(seconds * 1000, {"path": path})


class GatewayTelemetry:
    """Exports a gateway's figures, and traces what it does. Raises `CannotStart` as `Providers` does."""

    def __init__(self, options: TelemetryOptions, figures: Figures, surroundings: Surroundings) -> None:
        self._providers = Providers(options)
        self._traces = options.traces_exporter != "none"
        self._tracer = self._providers.tracer
        self._metrics = GatewayMetrics(self._providers.meter, figures, surroundings)

    def begin(self, name: str, traceparent: str | None) -> CallSpan:
        """Begin the span of a call, such as `POST /transcribe`; `traceparent` is what the client sent."""
        if not self._traces:
            return _NO_SPAN if traceparent is None else CallSpan(None, traceparent)
        span = self._tracer.start_span(name, context=context_of(traceparent), kind=SpanKind.SERVER)
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
        return CallSpan(span, carrier.get("traceparent"))

    def record(self, path: str, seconds: float) -> None:
        """Record how long a request took."""
        self._metrics.record(path, seconds)

    @property
    def scrape(self) -> Callable[[], str] | None:
        """A function that returns all metrics for Prometheus; None when they are exported in another way."""
        return self._providers.scrape

    async def shutdown(self) -> bool:
        """Flush and stop; return False when the deadline came first."""
        return await self._providers.shutdown()


def _gauges(meter: Meter, figures: Figures, surroundings: Surroundings) -> None:
    for name, unit, description, read in (
        ("gateway.connections", "{connection}", "Clients connected", lambda: figures.connections),
        ("gateway.max_connections", "{connection}", "Clients that may connect", lambda: figures.max_connections),
        ("gateway.workers", "{worker}", "Workers that answer", lambda: surroundings.count),
        ("nats.connected", "1", "1 while there is a connection to NATS, else 0", lambda: int(surroundings.connected)),
    ):
        meter.create_observable_gauge(f"transcriber.{name}", [_observed(read)], unit, description)


def _counters(meter: Meter, figures: Figures, surroundings: Surroundings) -> None:
    def by(name: str, counts: Mapping[str, int] | Mapping[int, int]) -> Callable[[CallbackOptions], list[Observation]]:
        return lambda _options: [Observation(n, {name: str(key)}) for key, n in list(counts.items())]

    def closed(_options: CallbackOptions) -> list[Observation]:
        sums: dict[str, int] = {}
        for code, n in list(figures.closed.items()):
            label = str(code) if code in _OWN_CODES else "other"  # clients choose among a thousand more
            sums[label] = sums.get(label, 0) + n
        return [Observation(n, {"code": label}) for label, n in sums.items()]

    def requests(_options: CallbackOptions) -> list[Observation]:
        return [Observation(n, {"path": p, "status": str(s)}) for (p, s), n in list(figures.requests.items())]

    def messages(_options: CallbackOptions) -> list[Observation]:
        both = {"in": figures.messages_in, "out": figures.messages_out}
        return [Observation(n, {"direction": direction}) for direction, n in both.items()]

    for name, unit, description, read in (
        ("gateway.opened", "{connection}", "Connections opened", by("path", figures.opened)),
        ("gateway.closed", "{connection}", "Connections ended", closed),
        ("gateway.refused", "{connection}", "Connections refused", by("status", figures.refused)),
        ("gateway.requests", "{request}", "Requests answered", requests),
        ("gateway.audio.seconds", "s", "Audio passed on", _observed(lambda: figures.audio)),
        ("gateway.lost.seconds", "s", "Audio that no worker took", _observed(lambda: figures.lost)),
        ("gateway.messages", "{message}", "Messages from and to clients", messages),
        ("gateway.dropped", "{message}", "Messages that a slow reader did not get", _observed(lambda: figures.dropped)),
        ("gateway.pauses", "1", "Times a client was not read for a while", _observed(lambda: figures.pauses)),
        ("nats.reconnects", "1", "Reconnections after a lost connection", _observed(lambda: surroundings.reconnects)),
    ):
        meter.create_observable_counter(f"transcriber.{name}", [read], unit, description)


def _observed(read: Callable[[], float]) -> Callable[[CallbackOptions], list[Observation]]:
    return lambda _options: [Observation(read())]
