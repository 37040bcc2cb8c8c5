"""The interface of telemetry for the rest of the program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transcriber.telemetry.metrics import Metrics
from transcriber.telemetry.providers import Providers, TelemetryOptions
from transcriber.telemetry.tracing import Tracing, WindowSpan, context_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from transcriber.domain.measurements import Snapshot, Tallies
    from transcriber.domain.results import Latency
    from transcriber.domain.timeline import Window


class Telemetry:
    """Traces windows, records latencies, and exports the figures that it is given."""

    def __init__(self, options: TelemetryOptions, tallies: Tallies, snapshot: Callable[[], Snapshot]) -> None:
        self._providers = Providers(options)
        self._tracing = Tracing(self._providers.tracer)
        self._metrics = Metrics(self._providers.meter, tallies, snapshot)

    def start(self, window: Window) -> WindowSpan:
        """Open the span of a window that is about to be queued."""
        return self._tracing.start(window)

    def record(self, stream: str, latency: Latency, traceparent: str | None = None) -> None:
        """Record the latencies of one published window; its trace becomes their exemplar."""
        self._metrics.record(stream, latency, context_of(traceparent))

    @property
    def scrape(self) -> Callable[[], str] | None:
        """A function that returns all metrics for Prometheus; None when they are exported in another way."""
        return self._providers.scrape

    async def shutdown(self) -> bool:
        """Flush and stop; return False when the deadline came first."""
        return await self._providers.shutdown()
