"""Takes stored audio to stored results. Unlike live audio, nothing is dropped when the queue is full."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING

from transcriber.broker.transcripts import FENCE_BYTES
from transcriber.domain.chunks import Moved
from transcriber.domain.events import Rejected, Replaced, Speech
from transcriber.domain.results import Transcript
from transcriber.domain.timeline import Gap, GapReason, Window
from transcriber.pipeline import parts as shared
from transcriber.pipeline.parts import InWork, Parts, Source
from transcriber.pipeline.receiver import Receiver
from transcriber.pipeline.records import Records
from transcriber.pipeline.verdict import judge
from transcriber.protocol.checkpoints import encode_record
from transcriber.protocol.outgoing import encode_speech
from transcriber.worker.jobs import Job, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from transcriber.audio.sessions import SessionOutput
    from transcriber.broker.transcripts import Transcripts
    from transcriber.domain.chunks import Arrival
    from transcriber.domain.records import Record
    from transcriber.domain.timeline import Checkpoint

_DECIDED_SECS = 5.0  # how long a pipeline that gives up its streams waits for windows in the engine
_UNSTORED = 1000  # outputs of a stream that may wait before no more audio is read: minutes of speech


class _Lane:
    """One stream's records, and the task that stores them while there are any."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.storing: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        return self.storing is None or self.storing.done()


class Room:
    """Tells all pipelines of one queue that it has room, each first in its turn."""

    def __init__(self) -> None:
        self._pipelines: deque[DurablePipeline] = deque()

    def join(self, pipeline: DurablePipeline) -> None:
        """Tell this pipeline too."""
        self._pipelines.append(pipeline)

    def leave(self, pipeline: DurablePipeline) -> None:
        """Tell it no more."""
        if pipeline in self._pipelines:
            self._pipelines.remove(pipeline)

    def freed(self) -> None:
        """Let the pipelines queue what waits."""
        self._pipelines.rotate(-1)
        for pipeline in tuple(self._pipelines):
            pipeline.submit()


class DurablePipeline:
    """Feeds sessions only while the queue has room, and stores each stream's results in order.

    `failed` gets the error that ends the work, for example `Fenced` when another daemon writes.
    """

    def __init__(
        self,
        parts: Parts,
        transcripts: Transcripts,
        at: Mapping[str, Checkpoint],
        moved: Mapping[str, str] | None = None,
        room: Room | None = None,
    ) -> None:
        """`at`: where each stream goes on; `moved`: of which streams the stored audio is another, in words.

        Pipelines that share a queue share a `room`.
        """
        self._parts = parts
        self._receiver = Receiver(
            parts.sessions,
            parts.tallies,
            self._take,
            stored=True,
            on_chunk=parts.on_chunk,
            multilingual=parts.multilingual,
        )
        self._in_work = InWork()
        self._transcripts = transcripts
        self._at = dict(at)
        self._lanes: dict[str, _Lane] = {}
        self._backlog: deque[Window] = deque()  # windows that the queue had no room for
        self._changed = asyncio.Event()
        self._leaving = False  # it gives up its streams
        self._room = room or Room()
        self._room.join(self)
        self._crowded = False  # the newest output's stream has too many records waiting to be stored
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        now = time.time()
        for checkpoint in at.values():
            parts.sessions.resume(checkpoint, now)
        self._take(Replaced(at[stream].origin, detail) for stream, detail in (moved or {}).items())

    async def ingest(self, source: Source) -> None:
        """Read stored messages one at a time, and wait while there is no room for their windows."""
        async for arrival in source.arrivals():
            self.receive(arrival, source.now)
            while self._backlog or self._crowded:
                self._changed.clear()
                await self._changed.wait()
                self.submit()

    def receive(self, arrival: Arrival, now: float) -> None:
        """Take what the source gave: a chunk, a skipped chunk, a malformed message, or that the stream was replaced."""
        self._receiver.receive(arrival, now)
        if isinstance(arrival, Moved):  # open sessions know already
            told = {origin.stream for origin, _ in self._parts.sessions.accounts()}
            newest = [self._lane(stream).records.newest for stream in {*self._at, *self._lanes} - told]
            self._take(Replaced(origin, arrival.detail, arrival.cursor) for origin in newest if origin is not None)

    async def keep_time(self, status_interval: float, source: Source) -> None:
        """Apply timeouts and publish status, for ever."""
        await shared.keep_time(self._parts, self._receiver, self._in_work, source, status_interval)

    async def stored(self) -> None:
        """Wait until every decided result is stored, except those that follow an undecided one."""
        while busy := [lane.storing for lane in self._lanes.values() if lane.storing is not None and not lane.idle]:
            await asyncio.wait(busy)

    async def give_up(self) -> None:
        """Finish and store the windows in the engine, and forget the rest. Call this when `ingest` has been cancelled.

        Somebody else goes on from the last record. Windows that take too long are left to it.
        """
        self._leaving = True
        self._backlog.clear()
        give_up_at = time.monotonic() + _DECIDED_SECS
        while len(self._in_work) and not self.failed.done() and (left := give_up_at - time.monotonic()) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)
        await self.stored()
        self.leave()

    def leave(self) -> None:
        """Store nothing more, and ignore what is still in the engine."""
        self._leaving = True
        for _, span in self._in_work.pop_all():  # from now on their outcomes are ignored
            span.end(GapReason.SHUTDOWN, failed=True)
        self._room.leave(self)
        self.stop_storing()

    def stop_storing(self) -> None:
        """Stop storing; the next start makes the remaining records again."""
        for lane in self._lanes.values():
            if lane.storing is not None:
                lane.storing.cancel()

    def _take(self, outputs: Iterable[SessionOutput]) -> None:
        for output in outputs:
            if isinstance(output, Speech):
                # Not on the subject of events: those are stored in order, and this one cannot wait.
                self._parts.publisher.put_ready([encode_speech(output, "partial")], essential=False)
                continue
            if isinstance(output, Gap):
                self._parts.listeners.on_gap(output)
            if isinstance(output, Window):
                self._backlog.append(output)
            stream = output.stream if isinstance(output, Rejected) else output.origin.stream
            records = self._lane(stream).records
            records.add(output)
            self._store(stream)
            self._crowded = records.waiting > _UNSTORED
        self.submit()

    def submit(self) -> None:
        """Queue windows while there is room."""
        if not self._backlog:
            return
        self._changed.set()
        queue = self._parts.queue
        while self._backlog and queue.depth < queue.capacity:
            window = self._backlog[0]
            if not queue.try_put(Job(window=window, deliver=self._on_outcome)):
                break  # closed
            self._backlog.popleft()
            self._parts.tallies.jobs_enqueued.add(window.origin.stream)
            self._in_work.add(window, self._parts.observer.start(window))

    def _on_outcome(self, outcome: Outcome) -> None:
        window, span = outcome.window, self._in_work.pop(outcome.window)
        if span is None:  # given up, with its stream
            self._room.freed()
            return
        if outcome.reason is GapReason.QUEUE_FULL:  # a request's recording took its place: put it back
            span.end(GapReason.QUEUE_FULL, failed=True)
            if not self._leaving:
                self._backlog.append(window)
            self._changed.set()
            return
        verdict = judge(outcome, now=time.monotonic())
        records, traceparent = self._lane(window.origin.stream).records, span.traceparent
        records.decide(window, verdict.result, verdict.suppressed, traceparent)
        self._parts.listeners.on_verdict(verdict, span)
        self._store(window.origin.stream)
        self._room.freed()
        self._changed.set()

    def _lane(self, stream: str) -> _Lane:
        if stream not in self._lanes:
            self._lanes[stream] = _Lane(Records(self._parts.sessions.format, self._at.pop(stream, None)))
        return self._lanes[stream]

    def _store(self, stream: str) -> None:
        """Start storing the stream's records if one is ready."""
        lane = self._lane(stream)
        if lane.idle and lane.records.next() is not None and not self.failed.done():
            lane.storing = asyncio.create_task(self._write(stream, lane.records))

    async def _write(self, stream: str, records: Records) -> None:
        try:
            while (record := records.next()) is not None:
                message = encode_record(record, time.time_ns(), self._parts.max_payload() - FENCE_BYTES)
                await self._transcripts.store(stream, message)
                records.stored()
                self._settle(record)
                self._crowded = False
                self._changed.set()
        except Exception as error:  # noqa: BLE001 - any error ends the daemon, not only this stream
            if not self.failed.done():
                self.failed.set_exception(error)

    def _settle(self, record: Record) -> None:
        """Enter a stored record into the account; the session's end may follow."""
        window, sessions = record.window, self._parts.sessions
        if window is None:
            return
        if isinstance(record.event, Transcript):
            self._parts.observer.record(window.origin.stream, record.event.latency, record.traceparent)
            self._take(sessions.transcribed(window))
        elif isinstance(record.event, Gap):
            self._take(o for o in sessions.dropped(window, record.event.reason) if not isinstance(o, Gap))
