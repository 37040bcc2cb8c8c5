"""Metrics of this process, under OpenTelemetry's names."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil
from opentelemetry.metrics import CallbackOptions, Observation

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter


def observe_process(meter: Meter) -> None:
    """Register CPU time, memory and time since the start."""
    process = psutil.Process()

    def cpu(_options: CallbackOptions) -> list[Observation]:
        times = process.cpu_times()
        return [
            Observation(times.user, {"cpu.mode": "user"}),
            Observation(times.system, {"cpu.mode": "system"}),
        ]

    def uptime(_options: CallbackOptions) -> list[Observation]:
        return [Observation(time.time() - process.create_time())]

    def memory(_options: CallbackOptions) -> list[Observation]:
        return [Observation(process.memory_info().rss)]

    meter.create_observable_counter("process.cpu.time", [cpu], "s", "CPU time of this process")
    meter.create_observable_gauge("process.uptime", [uptime], "s", "Time since the start of the process")
    meter.create_observable_up_down_counter("process.memory.usage", [memory], "By", "Resident memory")
