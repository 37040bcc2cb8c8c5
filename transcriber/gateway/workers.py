"""What the workers say of themselves: their queues, their speed, their streams."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One daemon's state, as it last told it. Seconds; None where an older daemon does not say."""

    id: str
    model: str = ""
    depth: int = 0  # jobs that wait or run
    capacity: int = 0
    estimated_wait: float = 0.0
    max_latency: float | None = None
    rtf: float | None = None
    streams: int = 0
    max_streams: int | None = None

    @property
    def room(self) -> bool:
        """Whether it takes another stream or recording, and keeps its promise."""
        late = self.max_latency is not None and self.estimated_wait > self.max_latency
        full = 0 < self.capacity <= self.depth
        return not (late or full or (self.max_streams is not None and self.streams >= self.max_streams))
