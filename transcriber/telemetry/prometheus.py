"""Metrics for a Prometheus that scrapes this process: OpenTelemetry's exporter, with no global registry and no server.

The exporter makes Prometheus' names of ours: underscores, the unit, and `_total` for a counter.
"""

from __future__ import annotations

import threading

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.view import View
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# OpenTelemetry's rules give a gauge of unit 1 the suffix `_ratio`, and a collector obeys. The Python exporter does not
# (https://github.com/open-telemetry/opentelemetry-specification/issues/4058). The same rules must fit both.
RATIOS = ("transcriber.worker.busy", "transcriber.rtf", "transcriber.nats.connected")


class Scraped:
    """All metrics as text, whenever they are asked for. Give `reader` and `views` to the meter provider."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        # Every instrument has one scope, so its labels would say the same on each series.
        self.reader = PrometheusMetricReader(scope_info_enabled=False, registry=self._registry)
        self.views = [View(instrument_name=name, name=f"{name}.ratio") for name in RATIOS]
        self._one_at_a_time = threading.Lock()

    def text(self) -> str:
        """Collect now, and write everything in Prometheus' text format, of type `CONTENT_TYPE`. From any thread."""
        # Two threads inside the exporter would take each other's figures: one gets them more than once, the other none.
        with self._one_at_a_time:
            return generate_latest(self._registry).decode()
