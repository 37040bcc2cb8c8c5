"""What live and durable pipelines share: the parts they connect, windows in work, timeouts, and status messages."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from transcriber.domain.events import ConsumerLag, Flushed, Status
from transcriber.protocol.outgoing import encode_status

if TYPE_CHECKING:
    from transcriber.audio.sessions import Sessions
    from transcriber.broker.publisher import Publisher
    from transcriber.domain.chunks import Arrival
    from transcriber.domain.measurements import Tallies
    from transcriber.domain.timeline import Window
    from transcriber.pipeline.listeners import Listener, Observer, Span
    from transcriber.pipeline.receiver import Receiver
    from transcriber.worker.admission import EngineSpeed
    from transcriber.worker.queue import JobQueue

TICK_SECS = 0.25  # a timeout is noticed so much late at most; the shortest useful one is a second

Key: TypeAlias = tuple[str, str, int]  # stream, session, sequence


class Source(Protocol):
    """Where audio comes from. Sessions time out by `now`, in seconds."""

    @property
    def now(self) -> float: ...
    @property
    def lag(self) -> ConsumerLag | None: ...
    def arrivals(self) -> AsyncIterator[Arrival]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts that a pipeline connects. `max_latency` in seconds.

    `on_chunk` is called with a stream's name after each of its accepted chunks. `listeners` get every window's fate.
    `multilingual` says whether the model in use can translate.
    """

    sessions: Sessions
    queue: JobQueue
    publisher: Publisher
    observer: Observer
    listeners: Listener
    tallies: Tallies
    max_latency: float
    max_payload: Callable[[], int]
    speed: Callable[[], EngineSpeed]
    on_chunk: Callable[[str], object] | None = None
    multilingual: Callable[[], bool] = lambda: True


class InWork:
    """Windows that were queued and have no outcome yet, each with its span."""

    def __init__(self) -> None:
        self._windows: dict[Key, tuple[Window, Span]] = {}
        self._held: dict[tuple[str, str], deque[tuple[set[Key], Flushed]]] = {}  # with the windows each waits for

    def __len__(self) -> int:
        return len(self._windows)

    def add(self, window: Window, span: Span) -> None:
        """Add a window that the queue has accepted."""
        self._windows[key_of(window)] = window, span

    def pop(self, window: Window) -> Span | None:
        """Remove a window and return its span; None when it was given up before."""
        _, span = self._windows.pop(key_of(window), (None, None))
        return span

    def pop_all(self) -> list[tuple[Window, Span]]:
        """Remove and return all windows, which are given up."""
        given_up = list(self._windows.values())
        self._windows.clear()
        return given_up

    def hold(self, flushed: Flushed) -> bool:
        """Hold an event back that must follow its session's windows. False: none of them is in work."""
        session = flushed.origin.stream, flushed.origin.session
        waiting = {key for key in self._windows if key[:2] == session}
        if waiting:
            self._held.setdefault(session, deque()).append((waiting, flushed))
        return bool(waiting)

    def release(self, window: Window) -> Iterator[Flushed]:
        """Yield, in order, the events that waited for this window alone. Call this once its result is on its way."""
        key = key_of(window)
        held = self._held.get(key[:2])
        if held is None:
            return
        for waiting, _ in held:
            waiting.discard(key)
        while held and not held[0][0]:
            yield held.popleft()[1]
        if not held:
            del self._held[key[:2]]

    def by_session(self) -> Counter[tuple[str, str]]:
        """Count the windows of each stream and session."""
        return Counter((stream, session) for stream, session, _ in self._windows)


def key_of(window: Window) -> Key:
    """Return the key that identifies a window."""
    return window.origin.stream, window.origin.session, window.sequence


async def keep_time(parts: Parts, receiver: Receiver, in_work: InWork, source: Source, status_interval: float) -> None:
    """Apply timeouts, and publish every session's status each `status_interval` seconds, for ever."""
    next_status = time.monotonic() + status_interval
    while True:
        await asyncio.sleep(TICK_SECS)
        receiver.tick(source.now)
        if (now := time.monotonic()) >= next_status:
            next_status = now + status_interval
            # A status that waits for NATS would be out of date when it arrives.
            if parts.publisher.connected:
                _publish_status(parts, in_work, source.lag)


def _publish_status(parts: Parts, in_work: InWork, lag: ConsumerLag | None) -> None:
    rtf, capacity, jobs = parts.speed().rtf, parts.queue.capacity, in_work.by_session()
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
