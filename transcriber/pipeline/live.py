"""Takes live audio from arrivals to windows, jobs and results. Every sample is settled and accounted for."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

from transcriber.domain.events import Flushed, Rejected, Speech
from transcriber.domain.timeline import Gap, GapReason, Silence, Window
from transcriber.pipeline import parts as shared
from transcriber.pipeline import verdict as verdicts
from transcriber.pipeline.parts import InWork, Parts, Source
from transcriber.pipeline.receiver import Receiver
from transcriber.protocol.outgoing import Message, encode_final, encode_outputs
from transcriber.worker.jobs import Job, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transcriber.audio.sessions import SessionOutput
    from transcriber.domain.chunks import Arrival
    from transcriber.domain.events import Event
    from transcriber.pipeline.listeners import Span
    from transcriber.pipeline.verdict import Verdict

_LOOK_SECS = 0.01  # between two looks whether all is settled; a window takes ten times as long


class LivePipeline:
    """Feeds sessions, offers their windows to the queue, settles and publishes the results."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._receiver = Receiver(
            parts.sessions,
            parts.tallies,
            self._take,
            stored=False,
            on_chunk=parts.on_chunk,
            multilingual=parts.multilingual,
        )
        self._in_work = InWork()
        self.published = asyncio.Event()  # set with each text

    async def ingest(self, source: Source) -> None:
        """Take everything that arrives, until the source ends."""
        async for arrival in source.arrivals():
            self.receive(arrival, source.now)

    def receive(self, arrival: Arrival, now: float) -> None:
        """Take one message: a chunk, a dropped chunk, or a malformed message."""
        self._receiver.receive(arrival, now)

    async def keep_time(self, status_interval: float, source: Source) -> None:
        """Apply timeouts and publish status, for ever."""
        await shared.keep_time(self._parts, self._receiver, self._in_work, source, status_interval)

    def end_all(self) -> None:
        """End every session; buffered audio becomes its last windows."""
        self._receiver.end_all()

    async def hand_over(self, seconds: float) -> None:
        """Close the open windows, and wait until everything is settled. What takes longer becomes a gap."""
        self._receiver.flush_all()
        give_up_at = time.monotonic() + seconds
        while self._parts.sessions.unsettled and time.monotonic() < give_up_at:  # noqa: ASYNC110 - many places settle
            await asyncio.sleep(_LOOK_SECS)
        self._give_up_work()
        while self._parts.sessions.unsettled and self._parts.publisher.connected:  # noqa: ASYNC110 - as they are published
            await asyncio.sleep(_LOOK_SECS)

    def give_up(self) -> None:
        """Turn every window without an outcome into a gap. Called at the end of the grace period."""
        for job in self._parts.queue.abandon():
            job.deliver(job.dropped(GapReason.SHUTDOWN, "the grace period is over"))
        self._give_up_work()

    def _give_up_work(self) -> None:
        for window, span in self._in_work.pop_all():
            given_up = verdicts.gap(window, GapReason.SHUTDOWN, "still in the engine")
            self._parts.publisher.put(partial(self._publish, given_up, span))
            self._answer(window)

    def _take(self, outputs: Iterable[SessionOutput]) -> None:
        for output in outputs:
            if isinstance(output, Silence):
                continue
            if isinstance(output, Window):
                self._try(output)
                continue
            if isinstance(output, Flushed) and self._in_work.hold(output):
                continue
            if isinstance(output, Gap):
                self._parts.listeners.on_gap(output)
            self._put(output)

    def _put(self, event: Event) -> None:
        encode = partial(encode_outputs, [event], time.time_ns())
        self._parts.publisher.put(encode, essential=not isinstance(event, Rejected | Speech))

    def _answer(self, window: Window) -> None:
        """Answer the flushes that waited for this window alone. Its result must have been put before."""
        for flushed in self._in_work.release(window):
            self._put(flushed)

    def _try(self, window: Window) -> None:
        """Queue a window. If the queue refuses it, settle it as dropped at once: the account must not wait for NATS."""
        queue, span = self._parts.queue, self._parts.observer.start(window)
        if queue.try_put(Job(window=window, deliver=self._on_outcome)):
            self._parts.tallies.jobs_enqueued.add(window.origin.stream)
            self._in_work.add(window, span)
            return
        wait = queue.expected_wait(window.origin.stream)
        detail = f"{queue.depth} of {queue.capacity} jobs, {wait:.1f} s to wait"
        dropped = verdicts.gap(window, GapReason.QUEUE_FULL, detail)
        messages, ended = self._settle(dropped, span)
        self._parts.publisher.put_ready([*messages, *ended])

    def _on_outcome(self, outcome: Outcome) -> None:
        span = self._in_work.pop(outcome.window)
        if span is not None:  # otherwise it was given up already
            self._parts.publisher.put(partial(self._judge, outcome, span))
            self._answer(outcome.window)

    def _judge(self, outcome: Outcome, span: Span) -> list[Message]:
        """Judge the outcome at the moment of publishing: only then is it known whether the text is in time."""
        verdict = verdicts.judge(outcome, now=time.monotonic(), max_latency=self._parts.max_latency)
        return self._publish(verdict, span)

    def _publish(self, verdict: Verdict, span: Span) -> list[Message]:
        """Settle a window at the moment of publishing. The end of its session then comes after what waits."""
        messages, ended = self._settle(verdict, span)
        if ended:
            self._parts.publisher.put_ready(ended)
        return messages

    def _settle(self, verdict: Verdict, span: Span) -> tuple[list[Message], list[Message]]:
        """Enter a verdict into the account, and notify the listeners.

        Returns the window's messages, and the end of its session if that was its last window.
        """
        parts, window, traceparent = self._parts, verdict.window, span.traceparent
        parts.listeners.on_verdict(verdict, span)
        if isinstance(verdict.result, Gap):
            outputs = parts.sessions.dropped(window, verdict.result.reason)
            gap, *ended = encode_outputs(outputs, time.time_ns(), traceparent)
            return [gap], ended
        parts.observer.record(window.origin.stream, verdict.result.latency, traceparent)
        self.published.set()
        final = encode_final(verdict.result, traceparent, parts.max_payload())
        suppressed = encode_outputs(verdict.suppressed, time.time_ns(), traceparent)
        ended = encode_outputs(parts.sessions.transcribed(window), time.time_ns(), traceparent)
        return [final, *suppressed], ended
