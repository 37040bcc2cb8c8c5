"""What the dashboard shows: counters and states, of which the page itself makes rates."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import psutil

import transcriber

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transcriber.gateway.parts import Parts
    from transcriber.gateway.workers import Worker


class Dashboard:
    """Reads the figures of this gateway, and what the workers say of themselves."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._process = psutil.Process()
        self._asking: asyncio.Task[Sequence[Worker]] | None = None

    def read(self) -> bytes:
        """The message for viewers: JSON in UTF-8, in one line. The workers are asked meanwhile, for the next one."""
        self._asking = asyncio.get_running_loop().create_task(self._parts.workers.ask())
        return json.dumps(self.view(), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")

    def view(self) -> dict[str, Any]:
        """Everything that the page shows. Seconds and bytes; `now` on the monotonic clock."""
        figures, workers = self._parts.figures, self._parts.workers.all
        times = self._process.cpu_times()
        return {
            "now": time.monotonic(),
            "version": transcriber.__version__,
            "state": "serving" if any(worker.room for worker in workers) else _trouble(bool(workers)),
            "connections": figures.connections,
            "max_connections": self._parts.options.max_connections,
            "audio": figures.audio,
            "requests": sum(figures.requests.values()),
            "refused": sorted(figures.refusals().items()),
            "workers": [asdict(worker) for worker in sorted(workers, key=lambda worker: (worker.model, worker.id))],
            "process": {"cpu": times.user + times.system, "memory": self._process.memory_info().rss},
        }


def _trouble(any_workers: bool) -> str:
    return "no worker has room" if any_workers else "no worker answers"
