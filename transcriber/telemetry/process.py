"""Metrics of this process, under OpenTelemetry's names."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

import psutil
from opentelemetry.metrics import CallbackOptions, Observation

from transcriber.telemetry.gpu import Gpus

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter


@functools.cache
def _process() -> psutil.Process:
    return psutil.Process()


@functools.cache
def _gpus() -> Gpus:
    return Gpus()


def footprint(*, gpu: bool) -> dict[str, float | None]:
    """What this process takes: seconds of CPU, bytes of memory, and bytes in use on its GPU if it computes on one."""
    times = _process().cpu_times()
    return {
        "cpu": times.user + times.system,
        "memory": _process().memory_info().rss,
        "gpu_memory": _gpus().memory if gpu else None,
    }


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
