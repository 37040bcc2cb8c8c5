"""Metrics as Prometheus scrapes them: the text format 0.0.4, under the names that a collector without suffixes gives.

(https://prometheus.io/docs/instrumenting/exposition_formats/) The SDK's own exporter cannot leave the suffixes off, so
alert rules would need other names with a collector than without one.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from opentelemetry.sdk.metrics.export import Gauge, Histogram, HistogramDataPoint, InMemoryMetricReader, NumberDataPoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from opentelemetry.sdk.metrics.export import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


def exposition(reader: InMemoryMetricReader) -> str:
    """Collect now, and write everything."""
    collected = reader.get_metrics_data()
    resources = collected.resource_metrics if collected is not None else []
    lines = (line for r in resources for s in r.scope_metrics for m in s.metrics for line in _metric(m))
    return "".join(f"{line}\n" for line in lines)


def _metric(metric: Metric) -> Iterator[str]:
    name = _name(metric.name)
    yield f"# HELP {name} {(metric.description or '').translate(_ESCAPES)}"
    yield f"# TYPE {name} {_kind(metric)}"
    for point in metric.data.data_points:
        if isinstance(point, HistogramDataPoint):
            yield from _histogram(name, point)
        elif isinstance(point, NumberDataPoint):
            yield _sample(name, point.attributes or {}, point.value)


def _kind(metric: Metric) -> str:
    if isinstance(metric.data, Histogram):
        return "histogram"
    return "gauge" if isinstance(metric.data, Gauge) or not getattr(metric.data, "is_monotonic", False) else "counter"


def _histogram(name: str, point: HistogramDataPoint) -> Iterator[str]:
    attributes = point.attributes or {}
    total = 0
    for bound, count in zip([*point.explicit_bounds, math.inf], point.bucket_counts, strict=True):
        total += count
        yield _sample(f"{name}_bucket", {**attributes, "le": _number(bound)}, total)
    yield _sample(f"{name}_sum", attributes, point.sum)
    yield _sample(f"{name}_count", attributes, point.count)


def _sample(name: str, attributes: Mapping[str, object], value: float) -> str:
    labels = ",".join(_labels(attributes.items()))
    return f"{name}{{{labels}}} {_number(value)}" if labels else f"{name} {_number(value)}"


def _labels(attributes: Iterable[tuple[str, object]]) -> Iterator[str]:
    for key, value in attributes:
        yield f'{_name(key)}="{str(value).translate(_ESCAPES)}"'


def _name(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else repr(int(value) if float(value).is_integer() else float(value))
