"""The way of live audio: arrivals to windows to jobs to results, every sample of it settled and told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from transcriber.broker.encoding import Message, encode_event, encode_final, encode_status
from transcriber.broker.live import Refused
from transcriber.errors import Rejection
from transcriber.messages import (
    SAMPLE_RATE,
    Chunk,
    Cursor,
    Event,
    Gap,
    GapReason,
    Lag,
    Rejected,
    Silence,
    Skipped,
    Status,
    Suppressed,
    Window,
)
from transcriber.notices import Notices
from transcriber.results import Latency, Recognition, Transcript
from transcriber.worker.queue import Job, JobQueue, Outcome

if TYPE_CHECKING:
    from transcriber.audio.sessions import Output, Sessions
    from transcriber.broker.live import Arrival
    from transcriber.broker.publisher import Publisher
    from transcriber.measurements import Tallies
    from transcriber.worker.promise import Pace

log = logging.getLogger(__name__)

NO_STREAM = "invalid"  # what chunks are counted under whose subject names no stream
TICK_SECS = 0.25  # how late a timeout may be noticed; the shortest useful one is a second


class Span(Protocol):
    """The trace of one window."""

    @property
    def traceparent(self) -> str | None: ...
    @property
    def ids(self) -> dict[str, str]: ...
    def end(self, outcome: str, *, failed: bool = False, **attributes: float) -> None: ...


class Observer(Protocol):
    """Where traces and latencies go."""

    def start(self, window: Window) -> Span: ...
    def record(self, stream: str, latency: Latency, traceparent: str | None = None) -> None: ...


class Source(Protocol):
    """Where audio comes from. `now` is the time by which sessions time out, in seconds."""

    @property
    def now(self) -> float: ...
    @property
    def lag(self) -> Lag | None: ...
    def arrivals(self) -> AsyncIterator[Arrival]: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a pipeline connects.

    `look` is called with a stream's name after each of its chunks, `tell` with each transcript, held-back text and gap.
    """

    sessions: Sessions
    queue: JobQueue
    publisher: Publisher
    observer: Observer
    tallies: Tallies
    max_latency: float  # seconds
    max_payload: Callable[[], int]
    pace: Callable[[], Pace]
    look: Callable[[str], object] | None = None
    tell: Callable[[Transcript | Suppressed | Gap], object] | None = None


class Pipeline:
    """Feeds sessions, tries their windows onto the queue, settles and publishes what comes back."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._sessions = parts.sessions
        self._queue = parts.queue
        self._publisher = parts.publisher
        self._observer = parts.observer
        self._tallies = parts.tallies
        self._notices = Notices()
        self._in_work: dict[tuple[str, str, int], tuple[Window, Span]] = {}

    async def ingest(self, source: Source) -> None:
        """Take everything that arrives, until the source ends."""
        async for arrival in source.arrivals():
            self.receive(arrival, source.now)

    def receive(self, arrival: Arrival, now: float) -> None:
        """Take one message in whatever state it arrived."""
        match arrival:
            case Chunk(stream=stream):
                self._tallies.chunks_received.add(stream)
                try:
                    self._handle(self._sessions.receive(arrival, now))
                except Rejection as rejection:
                    self._reject(stream, arrival.session, rejection, arrival.cursor)
                else:
                    if self._parts.look is not None:
                        self._parts.look(stream)
                if arrival.unknown_language is not None:
                    self._notices.unknown_language(stream, arrival.unknown_language)
                if self._sessions.unmixed:
                    self._notices.unmixed(self._sessions.unmixed)
            case Skipped(chunk=chunk, chunks=chunks):
                self._tallies.chunks_received.add(chunk.stream, amount=chunks)
                self._tallies.chunks_dropped.add(chunk.stream, GapReason.LAG, chunks)
                try:
                    self._handle(self._sessions.skip(arrival, now))
                except Rejection as rejection:
                    self._reject(chunk.stream, chunk.session, rejection, chunk.cursor)
            case Refused():
                self._tallies.chunks_received.add(arrival.stream or NO_STREAM)
                self._reject(arrival.stream, arrival.session, arrival.rejection, arrival.cursor)

    async def keep_time(self, status_interval: float, source: Source) -> None:
        """Apply timeouts and publish status, for ever."""
        next_status = time.monotonic() + status_interval
        while True:
            await asyncio.sleep(TICK_SECS)
            self._handle(self._sessions.tick(source.now))
            self._notices.unmixed(self._sessions.unmixed)
            if (now := time.monotonic()) >= next_status:
                next_status = now + status_interval
                self._publish_status(source.lag)

    def end_all(self) -> None:
        """End every session: what is buffered becomes its last windows."""
        self._handle(self._sessions.end_all())
        self._notices.unmixed(self._sessions.unmixed)

    def give_up(self) -> None:
        """At the end of the grace period: every window that has no outcome yet becomes a gap."""
        for job in self._queue.abandon():
            detail = "the grace period is over"
            job.deliver(Outcome(job.window, None, GapReason.SHUTDOWN, detail, job.enqueued, 0.0, 0.0))
        for window, span in list(self._in_work.values()):
            self._publisher.put(partial(self._drop, window, span, GapReason.SHUTDOWN, "still in the engine"))
        self._in_work.clear()

    @property
    def in_work(self) -> int:
        """Windows that were queued and have no outcome yet."""
        return len(self._in_work)

    def _handle(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if isinstance(output, Silence):
                continue
            if isinstance(output, Window):
                self._try(output)
                continue
            if isinstance(output, Gap):
                self._report_gap(output, {})
            self._publisher.put(partial(self._encode, [output]), essential=not isinstance(output, Rejected))

    def _try(self, window: Window) -> None:
        span = self._observer.start(window)
        key = (window.origin.stream, window.origin.session, window.sequence)
        if self._queue.try_put(Job(window, partial(self._on_outcome, key))):
            self._tallies.jobs_enqueued.add(window.origin.stream)
            self._in_work[key] = (window, span)
        else:
            wait = self._queue.expected_wait(window.origin.stream)
            detail = f"{self._queue.depth} of {self._queue.capacity} jobs, {wait:.1f} s to wait"
            self._publisher.put(partial(self._send, self._drop(window, span, GapReason.QUEUE_FULL, detail)))

    def _on_outcome(self, key: tuple[str, str, int], outcome: Outcome) -> None:
        if outcome.passes > 1:
            self._tallies.decodes_repeated.add(outcome.window.origin.stream)
        known = self._in_work.pop(key, None)
        if known is not None:  # else it was given up already
            self._publisher.put(partial(self._settle, outcome, known[1]))

    def _settle(self, outcome: Outcome, span: Span) -> list[Message]:
        """Decide a window's fate, at the moment in which its result can be published."""
        window, recognition = outcome.window, outcome.recognition
        if recognition is None or outcome.reason is not None:
            return self._drop(window, span, outcome.reason or GapReason.ENGINE_ERROR, outcome.detail)
        end_to_end = time.monotonic() - outcome.enqueued
        if end_to_end > self._parts.max_latency:
            return self._drop(window, span, GapReason.DEADLINE, f"finished after {end_to_end:.1f} s")
        latency = Latency(outcome.queued, outcome.processing, end_to_end)
        transcript = Transcript(window.origin, window.sequence, window.start, window.end, recognition, latency)
        messages = [encode_final(transcript, span.traceparent, self._parts.max_payload())]
        held = suppressed(window, recognition)
        messages += self._encode([*held, *self._sessions.transcribed(window)], span.traceparent)
        self._observer.record(window.origin.stream, latency, span.traceparent)
        self._report_text(transcript, held, span)
        span.end("transcribed", queue=latency.queue, processing=latency.processing, end_to_end=end_to_end)
        return messages

    def _report_text(self, transcript: Transcript, held: Iterable[Suppressed], span: Span) -> None:
        where = {"stream": transcript.origin.stream, "sequence": transcript.sequence, **span.ids}
        end_to_end = round(transcript.latency.end_to_end, 3)
        log.debug("transcribed", extra={**where, "text": transcript.recognition.text, "end_to_end": end_to_end})
        for text in held:
            log.warning("text suppressed", extra={**where, "reason": text.reason, "text": text.text})
        self._tell(transcript, *held)

    def _drop(self, window: Window, span: Span, reason: GapReason, detail: str) -> list[Message]:
        """Settle a window as a gap: a log line, a metric and an event."""
        self._tallies.jobs_dropped.add(window.origin.stream, reason)
        outputs = self._sessions.dropped(window, reason)
        self._report_gap(Gap(window.origin, window.start, window.end, reason), {"detail": detail, **span.ids})
        span.end(reason, failed=True)
        return self._encode(outputs, span.traceparent)

    def _reject(self, stream: str | None, session: str | None, rejection: Rejection, cursor: Cursor | None) -> None:
        self._tallies.chunks_dropped.add(stream or NO_STREAM, rejection.reason)
        extra = {"stream": stream, "reason": rejection.reason, "detail": rejection.detail, "limited": True}
        log.warning("chunk rejected", extra=extra)
        if stream is not None:
            self._handle(self._sessions.reject(stream, session, rejection, cursor))

    def _report_gap(self, gap: Gap, more: dict[str, str]) -> None:
        extra = {
            "stream": gap.origin.stream,
            "session": gap.origin.session,
            "start": gap.start / SAMPLE_RATE,
            "end": gap.end / SAMPLE_RATE,
            "reason": gap.reason.value,
            "limited": True,
            **more,
        }
        log.warning("audio dropped", extra=extra)
        self._tell(gap)

    def _tell(self, *told: Transcript | Suppressed | Gap) -> None:
        if self._parts.tell is not None:
            for one in told:
                self._parts.tell(one)

    def _publish_status(self, lag: Lag | None) -> None:
        """Tell where every session stands; while NATS is away nobody would hear it, and it is stale when it is back."""
        if not self._publisher.connected:
            return
        rtf, capacity = self._parts.pace().rtf, self._queue.capacity
        jobs: dict[tuple[str, str], int] = {}
        for stream, session, _ in self._in_work:
            jobs[stream, session] = jobs.get((stream, session), 0) + 1
        for origin, account in self._sessions.accounts():
            pending = jobs.get((origin.stream, origin.session), 0)
            wait = self._queue.expected_wait(origin.stream)
            status = Status(origin, account, pending, capacity, wait, rtf, lag)
            self._publisher.put(partial(self._send, [encode_status(status, time.time_ns())]), essential=False)

    def _encode(self, events: Iterable[Event | Output], traceparent: str | None = None) -> list[Message]:
        told = (event for event in events if not isinstance(event, Window | Silence))
        return [encode_event(event, time.time_ns(), traceparent) for event in told]

    @staticmethod
    def _send(messages: list[Message]) -> list[Message]:
        return messages


def suppressed(window: Window, recognition: Recognition) -> list[Suppressed]:
    """What the guards held back of a window's text."""
    shift = window.start
    return [
        Suppressed(window.origin, shift + h.segment.start, shift + h.segment.end, h.reason, h.segment.text)
        for h in recognition.held_back
    ]
