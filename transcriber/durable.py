"""The way of stored audio: as the live one, but nothing is dropped for want of room, and every fate is stored."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from transcriber.audio.records import Record, Records
from transcriber.broker.checkpoints import encode_record
from transcriber.broker.transcripts import FENCE_BYTES
from transcriber.messages import Chunk, Gap, GapReason, Rejected, Window
from transcriber.pipeline import Parts, Pipeline, Source, suppressed
from transcriber.results import Latency, Transcript
from transcriber.worker.queue import Job, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from transcriber.audio.sessions import Output
    from transcriber.broker.live import Arrival
    from transcriber.broker.transcripts import Transcripts
    from transcriber.messages import Checkpoint

_UNSTORED = 1000  # of a stream's outputs may wait before no more audio is taken: minutes of speech


class _Lane:
    """One stream's records and the task that stores them, while there are any."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.storing: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        return self.storing is None or self.storing.done()


class DurablePipeline(Pipeline):
    """Feeds sessions no faster than the queue has room, and stores what comes back, stream by stream, in order.

    `failed` gets the error that ends the work: `Fenced`, when somebody else writes.
    """

    def __init__(self, parts: Parts, transcripts: Transcripts, at: Mapping[str, Checkpoint]) -> None:
        super().__init__(parts)
        self._transcripts = transcripts
        self._at = dict(at)
        self._lanes: dict[str, _Lane] = {}
        self._backlog: deque[Window] = deque()  # windows for which the queue had no room
        self._changed = asyncio.Event()
        self._crowded = False  # the newest output's stream stores more slowly than it speaks
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        now = time.time()
        for checkpoint in at.values():
            self._sessions.resume(checkpoint, now)

    async def ingest(self, source: Source) -> None:
        """Take what is stored, one message at a time, and wait while there is no room for its windows."""
        async for arrival in source.arrivals():
            self.receive(arrival, source.now)
            while self._backlog or self._crowded:
                self._changed.clear()
                await self._changed.wait()
                self._submit()

    def receive(self, arrival: Arrival, now: float) -> None:
        """Take one message. A session that was silent too long before it, by the messages' time, has ended."""
        if isinstance(arrival, Chunk):
            self._handle(self._sessions.tick_stream(arrival.stream, now))
        super().receive(arrival, now)

    async def stored(self) -> None:
        """Wait until everything that is decided, and follows nothing undecided, is stored."""
        while busy := [lane.storing for lane in self._lanes.values() if lane.storing is not None and not lane.idle]:
            await asyncio.wait(busy)

    def stop_storing(self) -> None:
        """Leave what is not stored yet to the next start."""
        for lane in self._lanes.values():
            if lane.storing is not None:
                lane.storing.cancel()

    def _handle(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if isinstance(output, Gap):
                self._report_gap(output, {})
            if isinstance(output, Window):
                self._backlog.append(output)
            stream = output.stream if isinstance(output, Rejected) else output.origin.stream
            records = self._lane(stream).records
            records.add(output)
            self._store(stream)
            self._crowded = records.waiting > _UNSTORED
        self._submit()

    def _submit(self) -> None:
        """Queue what there is room for."""
        while self._backlog and self._queue.depth < self._queue.capacity:
            window = self._backlog[0]
            key = (window.origin.stream, window.origin.session, window.sequence)
            if not self._queue.try_put(Job(window, partial(self._on_outcome, key))):
                break  # closed
            self._backlog.popleft()
            self._tallies.jobs_enqueued.add(window.origin.stream)
            self._in_work[key] = (window, self._observer.start(window))

    def _on_outcome(self, key: tuple[str, str, int], outcome: Outcome) -> None:
        if outcome.passes > 1:
            self._tallies.decodes_repeated.add(outcome.window.origin.stream)
        window, recognition, (_, span) = outcome.window, outcome.recognition, self._in_work.pop(key)
        records = self._lane(window.origin.stream).records
        if outcome.reason is GapReason.QUEUE_FULL:  # a request's recording took its place: it waits, nothing is dropped
            span.end(GapReason.QUEUE_FULL, failed=True)
            self._backlog.append(window)
            self._changed.set()
            return
        if recognition is None:
            reason = outcome.reason or GapReason.ENGINE_ERROR
            self._tallies.jobs_dropped.add(window.origin.stream, reason)
            gap = Gap(window.origin, window.start, window.end, reason, window.cursor)
            self._report_gap(gap, {"detail": outcome.detail, **span.ids})
            records.decide(window, gap, traceparent=span.traceparent)
            span.end(reason, failed=True)
        else:
            latency = Latency(outcome.queued, outcome.processing, time.monotonic() - outcome.enqueued)
            transcript = Transcript(window.origin, window.sequence, window.start, window.end, recognition, latency)
            held = suppressed(window, recognition)
            records.decide(window, transcript, held, span.traceparent)
            self._report_text(transcript, held, span)
            span.end("transcribed", queue=latency.queue, processing=latency.processing, end_to_end=latency.end_to_end)
        self._store(window.origin.stream)
        self._submit()
        self._changed.set()

    def _lane(self, stream: str) -> _Lane:
        if stream not in self._lanes:
            self._lanes[stream] = _Lane(Records(self._sessions.format, self._at.pop(stream, None)))
        return self._lanes[stream]

    def _store(self, stream: str) -> None:
        """Make sure that what the stream has ready is being stored."""
        lane = self._lane(stream)
        if lane.idle and lane.records.next() is not None and not self.failed.done():
            lane.storing = asyncio.create_task(self._write(stream, lane.records))

    async def _write(self, stream: str, records: Records) -> None:
        try:
            while (record := records.next()) is not None:
                message = encode_record(record, time.time_ns(), self._parts.max_payload() - FENCE_BYTES)
                await self._transcripts.store(stream, message)
                records.stored()
                self._settle_stored(record)
                self._crowded = False
                self._changed.set()
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the daemon and not this stream alone
            if not self.failed.done():
                self.failed.set_exception(error)

    def _settle_stored(self, record: Record) -> None:
        """What is stored is settled; the session's end may follow."""
        window = record.window
        if window is None:
            return
        if isinstance(record.event, Transcript):
            self._observer.record(window.origin.stream, record.event.latency, record.traceparent)
            self._handle(self._sessions.transcribed(window))
        elif isinstance(record.event, Gap):
            self._handle(o for o in self._sessions.dropped(window, record.event.reason) if not isinstance(o, Gap))
