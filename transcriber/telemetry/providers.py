"""Sets up the OpenTelemetry SDK from its standard variables, and shuts it down within a deadline."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    MetricExporter,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from transcriber.domain.errors import CannotStart
from transcriber.telemetry.prometheus import Scraped
from transcriber.threads import on_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)

SHUTDOWN_SECS = 2.0  # the time for one export; an exit waits no longer for the collector
_SCOPE = "transcriber"


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryOptions:
    """The settings of OTEL_*. Exporters: `otlp`, `console` or `none`; protocols: `grpc` or `http/protobuf`.

    The exporter of metrics may also be `prometheus`: the process is scraped.
    """

    metrics_exporter: str = "none"
    traces_exporter: str = "none"
    metrics_protocol: str = "grpc"
    traces_protocol: str = "grpc"
    timeout: float | None = None  # seconds for one export; None leaves it to OTEL_EXPORTER_OTLP_TIMEOUT
    version: str = ""


class Providers:
    """The SDK's meter and tracer providers. The SDK itself reads endpoint, headers, interval and sampler.

    Raises `CannotStart` when the SDK refuses one of them.
    """

    def __init__(self, options: TelemetryOptions) -> None:
        self._meters: MeterProvider | None = None
        self._scraped: Scraped | None = None
        self._tracers: TracerProvider | None = None
        try:
            self._build(options)
        except Exception as error:
            raise CannotStart(f"OpenTelemetry refuses an OTEL_* setting: {error}") from error

    def _build(self, options: TelemetryOptions) -> None:
        attributes = {"service.version": options.version}
        if "service.name" not in OTELResourceDetector().detect().attributes:
            attributes["service.name"] = _SCOPE
        resource = Resource.create(attributes)
        if options.metrics_exporter == "prometheus":
            self._scraped = scraped = Scraped()
            self._meters = MeterProvider([scraped.reader], resource, shutdown_on_exit=False, views=scraped.views)
        elif (exporter := _metric_exporter(options)) is not None:
            self._meters = MeterProvider([PeriodicExportingMetricReader(exporter)], resource, shutdown_on_exit=False)
        if (span_exporter := _span_exporter(options)) is not None:
            self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._tracers.add_span_processor(BatchSpanProcessor(span_exporter))

    @property
    def meter(self) -> Meter:
        return (self._meters or metrics.NoOpMeterProvider()).get_meter(_SCOPE)

    @property
    def scrape(self) -> Callable[[], str] | None:
        """A function that returns all metrics for Prometheus; None unless Prometheus scrapes us."""
        return None if self._scraped is None else self._scraped.text

    @property
    def tracer(self) -> Tracer:
        return (self._tracers or trace.NoOpTracerProvider()).get_tracer(_SCOPE)

    async def shutdown(self) -> bool:
        """Flush and stop all providers at once, on threads. Return False when the deadline came first."""
        calls: list[Callable[[], Any]] = []
        if self._meters is not None:
            meters = self._meters
            calls.append(lambda: meters.shutdown(timeout_millis=SHUTDOWN_SECS * 1000))
        if self._tracers is not None:
            calls.append(self._tracers.shutdown)
        waiting = [on_thread(partial(_flush, call), "telemetry-shutdown") for call in calls]
        try:
            async with asyncio.timeout(SHUTDOWN_SECS):
                await asyncio.gather(*waiting)
        except TimeoutError:
            log.warning("telemetry was not flushed within %g s", SHUTDOWN_SECS)
            return False
        return True


# Each exporter is loaded when it is chosen: that of gRPC alone takes more memory than a thousand clients of a gateway.
# ruff: noqa: PLC0415


def _metric_exporter(options: TelemetryOptions) -> MetricExporter | None:
    match options.metrics_exporter, options.metrics_protocol:
        case "otlp", "http/protobuf":
            from opentelemetry.exporter.otlp.proto.http import metric_exporter as http

            return http.OTLPMetricExporter(timeout=options.timeout)
        case "otlp", _:
            from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc

            return grpc.OTLPMetricExporter(timeout=options.timeout)
        case "console", _:
            return ConsoleMetricExporter(formatter=lambda batch: f"{batch.to_json(indent=None)}\n")
        case _:
            return None


def _span_exporter(options: TelemetryOptions) -> SpanExporter | None:
    match options.traces_exporter, options.traces_protocol:
        case "otlp", "http/protobuf":
            from opentelemetry.exporter.otlp.proto.http import trace_exporter as http

            return http.OTLPSpanExporter(timeout=options.timeout)
        case "otlp", _:
            from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc

            return grpc.OTLPSpanExporter(timeout=options.timeout)
        case "console", _:
            return ConsoleSpanExporter(formatter=lambda span: f"{span.to_json(indent=None)}\n")
        case _:
            return None


def _flush(call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - an exporter's failure must not change how the daemon exits
        log.warning("telemetry shutdown: %s", error)
