"""What a daemon says of itself in the statistics of its NATS service, for those that send it work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil

from transcriber.telemetry.gpu import Gpus

if TYPE_CHECKING:
    from collections.abc import Callable

    from transcriber.http.overview import PageState
    from transcriber.worker.queue import JobQueue

_NEW_STREAM = ""  # no stream has this name, so it is one that has had nothing yet


class WorkerState:
    """Reads the daemon's state at this moment."""

    def __init__(self, page_state: Callable[[], PageState], queue: JobQueue, max_streams: int) -> None:
        self._page_state = page_state
        self._queue = queue
        self._max_streams = max_streams
        self._process = psutil.Process()
        self._gpus = Gpus()

    def read(self) -> dict[str, Any]:
        """Return the fields of P-9, ready for JSON. Seconds and bytes."""
        state = self._page_state()
        figures, times = state.snapshot, self._process.cpu_times()
        gpu_memory = self._gpus.memory if figures.gpu else None
        return {
            "model": state.model,
            "depth": figures.queue_depth,
            "capacity": figures.queue_capacity,
            "estimated_wait": self._queue.expected_wait(_NEW_STREAM),
            "rtf": figures.rtf,
            "streams": state.streams,
            "max_streams": self._max_streams,
            "busy": figures.busy,
            "cpu": times.user + times.system,
            "memory": self._process.memory_info().rss,
            **({} if state.max_latency is None else {"max_latency": state.max_latency}),
            **({} if gpu_memory is None else {"gpu_memory": gpu_memory}),
        }
