"""A bounded queue between the event loop and the Whisper thread: put never waits."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from transcriber.messages import GapReason, Recognition, Window


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a window: a recognition, or the reason why there is none. Seconds."""

    window: Window
    recognition: Recognition | None
    reason: GapReason | None
    detail: str
    enqueued: float  # monotonic
    queued: float
    processing: float


@dataclass(frozen=True, slots=True)
class Job:
    """A window on its way through the worker; `deliver` is called on the event loop with what became of it."""

    window: Window
    deliver: Callable[[Outcome], None]
    enqueued: float = field(default_factory=time.monotonic)


class JobQueue:
    """First in, first out. Capacity counts jobs waiting and the one running."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._waiting: deque[Job] = deque()
        self._running = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def depth(self) -> int:
        """Jobs waiting or running."""
        return len(self._waiting) + self._running

    @property
    def closed(self) -> bool:
        return self._closed

    def try_put(self, job: Job) -> bool:
        """Put without waiting; False when the queue is full or closed."""
        with self._changed:
            if self._closed or self.depth >= self.capacity:
                return False
            self._waiting.append(job)
            self._changed.notify()
            return True

    def get(self) -> Job | None:
        """Wait for a job; None when the queue is closed and empty. Answer each with `done`."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            self._running += 1
            return self._waiting.popleft()

    def done(self) -> None:
        """The job that was got is finished; its place is free."""
        with self._changed:
            self._running -= 1

    def close(self) -> None:
        """Take no more jobs; those waiting are still given out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> list[Job]:
        """Close, and hand back the jobs that are still waiting."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
            return left
