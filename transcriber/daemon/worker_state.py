"""What a daemon says of itself in the statistics of its NATS service, for those that send it work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil

from transcriber.telemetry.gpu import Gpus
from transcriber.worker.engine import Device

if TYPE_CHECKING:
    from transcriber.settings import Settings
    from transcriber.worker.queue import JobQueue
    from transcriber.worker.thread import WhisperThread

_NEW_STREAM = ""  # no stream has this name, so it is one that has had nothing yet


class WorkerState:
    """Reads the daemon's state at this moment."""

    def __init__(self, worker: WhisperThread, settings: Settings) -> None:
        self._worker = worker
        self._settings = settings
        self._process = psutil.Process()
        self._gpus = Gpus()

    def read(self, queue: JobQueue | None, streams: int) -> dict[str, Any]:
        """Return the fields of P-38, ready for JSON. Seconds and bytes."""
        worker, settings, times = self._worker, self._settings, self._process.cpu_times()
        return {
            "model": worker.model,
            "multilingual": worker.multilingual,
            "device": str(worker.device),
            "subject": settings.subject,
            "partitions": None if settings.fleet is None else settings.fleet.partitions,
            "depth": queue.depth if queue is not None else 0,
            "capacity": queue.capacity if queue is not None else 0,
            "estimated_wait": queue.expected_wait(_NEW_STREAM) if queue is not None else 0.0,
            "max_latency": None if settings.durable else settings.max_latency,
            "rtf": worker.speed.rtf,
            "busy": worker.busy_since is not None,
            "busy_seconds": worker.busy_seconds,
            "streams": streams,
            "max_streams": settings.sessions.max_streams,
            "cpu_seconds": times.user + times.system,
            "memory": self._process.memory_info().rss,
            "gpu_memory": self._gpus.memory if worker.device is Device.CUDA else None,
        }
