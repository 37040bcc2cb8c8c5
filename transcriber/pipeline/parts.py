"""What the pipelines are made of, and what they share: windows at work, and where every session stands."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from transcriber.domain.events import Lag, Status
from transcriber.protocol.outgoing import encode_status

if TYPE_CHECKING:
    from transcriber.audio.sessions import Sessions
    from transcriber.broker.live import Arrival
    from transcriber.broker.publisher import Publisher
    from transcriber.domain.measurements import Tallies
    from transcriber.domain.timeline import Window
    from transcriber.pipeline.listeners import Listener, Observer, Span
    from transcriber.pipeline.receiver import Receiver
    from transcriber.worker.admission import EngineSpeed
    from transcriber.worker.queue import JobQueue

TICK_SECS = 0.25  # how late a timeout may be noticed; the shortest useful one is a second

Key: TypeAlias = tuple[str, str, int]  # stream, session, sequence


class Source(Protocol):
    """Where audio comes from. `now` is the time by which sessions time out, in seconds."""

    @property
    def now(self) -> float: ...
    @property
    def lag(self) -> Lag | None: ...
    def arrivals(self) -> AsyncIterator[Arrival]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a pipeline connects. `max_latency` in seconds.

    `look` is called with a stream's name after each of its accepted chunks; `listeners` hear of every window's fate.
    """

    sessions: Sessions
    queue: JobQueue
    publisher: Publisher
    observer: Observer
    listeners: Listener
    tallies: Tallies
    max_latency: float
    max_payload: Callable[[], int]
    pace: Callable[[], EngineSpeed]
    look: Callable[[str], object] | None = None


class InWork:
    """Windows that were queued and have no outcome yet, each with its span."""

    def __init__(self) -> None:
        self._windows: dict[Key, tuple[Window, Span]] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def add(self, window: Window, span: Span) -> None:
        """Take a window that the queue has taken."""
        self._windows[key_of(window)] = window, span

    def pop(self, window: Window) -> Span | None:
        """Let go of a window; None when it was given up before."""
        _, span = self._windows.pop(key_of(window), (None, None))
        return span

    def pop_all(self) -> list[tuple[Window, Span]]:
        """Give all of them up."""
        given_up = list(self._windows.values())
        self._windows.clear()
        return given_up

    def by_session(self) -> Counter[tuple[str, str]]:
        """How many there are of each stream and session."""
        return Counter((stream, session) for stream, session, _ in self._windows)


def key_of(window: Window) -> Key:
    """What tells a window from all others."""
    return window.origin.stream, window.origin.session, window.sequence


async def keep_time(parts: Parts, receiver: Receiver, in_work: InWork, source: Source, status_interval: float) -> None:
    """Apply timeouts, and publish where every session stands each `status_interval` seconds, for ever."""
    next_status = time.monotonic() + status_interval
    while True:
        await asyncio.sleep(TICK_SECS)
        receiver.tick(source.now)
        if (now := time.monotonic()) >= next_status:
            next_status = now + status_interval
            # While NATS is away nobody would hear it, and it is stale when it is back.
            if parts.publisher.connected:
                _publish_status(parts, in_work, source.lag)


def _publish_status(parts: Parts, in_work: InWork, lag: Lag | None) -> None:
    rtf, capacity, jobs = parts.pace().rtf, parts.queue.capacity, in_work.by_session()
    for origin, account in parts.sessions.accounts():
        wait = parts.queue.expected_wait(origin.stream)
        status = Status(
            origin=origin,
            account=account,
            pending_jobs=jobs[origin.stream, origin.session],
            queue_capacity=capacity,
            estimated_wait=wait,
            rtf=rtf,
            lag=lag,
        )
        parts.publisher.put_ready([encode_status(status, time.time_ns())], essential=False)
