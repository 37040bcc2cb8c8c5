"""Serves metrics to a Prometheus that scrapes this process: OpenTelemetry's exporter without its registry and server.

The exporter turns our names into Prometheus' names: underscores, the unit, and `_total` for a counter.
"""

from __future__ import annotations

import threading

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.view import View
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# By OpenTelemetry's rules a gauge of unit 1 gets the suffix `_ratio`. A collector adds it, the Python exporter does not
# (https://github.com/open-telemetry/opentelemetry-specification/issues/4058). Our alert rules must fit both.
RATIOS = ("transcriber.worker.busy", "transcriber.worker.gpu", "transcriber.rtf", "transcriber.nats.connected")


class Scraped:
    """Returns all metrics as text on request. The meter provider needs `reader` and `views`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        # All instruments have the same scope, so labels for it would be the same on every series.
        self.reader = PrometheusMetricReader(scope_info_enabled=False, registry=self._registry)
        self.views = [View(instrument_name=name, name=f"{name}.ratio") for name in RATIOS]
        self._one_at_a_time = threading.Lock()

    def text(self) -> str:
        """Collect now; return all metrics in Prometheus' text format, of type `CONTENT_TYPE`. Thread-safe."""
        # Two threads in the exporter would mix up their figures: one gets them twice, the other not at all.
        with self._one_at_a_time:
            return generate_latest(self._registry).decode()
