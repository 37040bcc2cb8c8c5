"""Assigns chunks to sessions, ends sessions, and settles their audio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transcriber.audio.foreign import ForeignFiles
from transcriber.audio.ledger import Ledger
from transcriber.audio.rivals import Rivals
from transcriber.audio.session import Session, unheard
from transcriber.audio.stream import AudioStream, TimelineItem
from transcriber.audio.used import UsedNames
from transcriber.domain import containers
from transcriber.domain.chunks import AudioFormat, Chunk, ChunkEvent, DroppedChunk, as_declared
from transcriber.domain.errors import Rejection
from transcriber.domain.events import Ended, Flushed, Rejected, Replaced, Speech, Started
from transcriber.domain.timeline import Account, Checkpoint, Closed, Fate, Gap, GapReason, Origin, Silence, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from transcriber.audio.session import SessionOptions
    from transcriber.domain.chunks import Cursor
    from transcriber.domain.measurements import Tallies

SessionOutput = Started | Window | Silence | Gap | Flushed | Speech | Ended | Rejected | Replaced


class Sessions:
    """Takes chunks, and returns windows to queue and events to publish. Settles windows when their fate is known.

    Pure: `now` is in seconds on any monotonic clock. Every method returns outputs in order. Every `Window` must come
    back once, through `transcribed` or `dropped`.
    """

    def __init__(self, options: SessionOptions, new_id: Callable[[], str], tallies: Tallies) -> None:
        self._options = options
        self.refuse: Callable[[], str | None] = lambda: None  # says why a stream that begins now must be refused
        self._new_id = new_id
        self.current: dict[str, Session] = {}  # by stream
        self._by_id: dict[tuple[str, str], Session] = {}  # current ones, and ended ones with pending windows
        self._used = UsedNames()
        self._rivals = Rivals(options.stream_timeout)
        self._foreign = ForeignFiles(options.stream_timeout)
        self._declared: dict[str, AudioFormat] = {}  # of streams whose session began with a WAV header
        self._tallies = tallies
        self.unmixed: list[Origin] = []  # sessions whose channels cancel each other, each once; the log takes them out
        self.trimmed: list[Origin] = []  # sessions that sent audio more than once, likewise

    def resume(self, at: Checkpoint, now: float) -> None:
        """Continue a session of an earlier daemon, or remember that it is over."""
        self._used.resume(at.origin.stream, at.used)
        if at.over:
            self._used.remember(at.origin, at.requested_id)
            return
        session = Session.from_checkpoint(at, self._options.stream, now)
        if at.declared:
            self._declared[at.origin.stream] = at.format
        self._rivals.resume(at.origin.stream, at.older, session.last_audio)
        for name in at.older:
            self._used.remember(Origin(at.origin.stream, name), None)
        self.current[at.origin.stream] = self._by_id[at.origin.stream, at.origin.session] = session

    def format(self, origin: Origin) -> AudioFormat | None:
        """The present format of a session's chunks; None when it is over."""
        session = self._by_id.get((origin.stream, origin.session))
        return session.audio.format if session else None

    def receive(self, chunk: Chunk, now: float) -> list[SessionOutput]:
        """Take one chunk. Raises `Rejection` if it cannot belong to any session, and changes nothing then."""
        if self._foreign.files:
            self._foreign.check(chunk, now)
        if self._declared and chunk.stream in self._declared:
            chunk = as_declared(chunk, self._declared[chunk.stream])
        found = self._find(chunk, frames=chunk.frames, now=now)
        if found is None:
            return [*unheard(chunk)]
        session, outputs = found
        if not chunk.pcm:
            chunk = session.audio.adopt(chunk)
        before = session.audio.head
        items = session.audio.push(chunk, session.accept())
        if chunk.pcm and session.audio.head > before:
            session.last_audio, session.idle = now, False
        outputs += self._take(session, items)
        if chunk.event is ChunkEvent.FLUSH:
            outputs += self._flush(session, chunk, chunk.frames)
        elif chunk.event is ChunkEvent.END:
            outputs += self._end(session)
        return outputs

    def skip(self, dropped: DroppedChunk, now: float) -> list[SessionOutput]:
        """Account for chunks that were dropped before they were decoded."""
        chunk, frames = dropped.chunk, dropped.frames
        if chunk.stream in self._declared:
            source, chunk = chunk, as_declared(chunk, self._declared[chunk.stream])
            frames = frames * source.format.frame_bytes // chunk.format.frame_bytes
        found = self._find(chunk, frames=frames, now=now)
        if found is None:
            return [*unheard(chunk)]
        session, outputs = found
        if frames:
            session.last_audio, session.idle = now, False
        else:
            chunk = session.audio.adopt(chunk)
        outputs += self._take(session, session.audio.skip(chunk, frames, GapReason.LAG, session.accept()))
        if chunk.event is ChunkEvent.FLUSH:
            outputs += self._flush(session, chunk, frames)
        elif chunk.event is ChunkEvent.END:
            outputs += self._end(session)
        return outputs

    def reject(
        self, stream: str, session: str | None, rejection: Rejection, cursor: Cursor | None = None, now: float = 0.0
    ) -> list[SessionOutput]:
        """Note that a chunk of this stream was rejected. A hole there gets the reason `undecodable`."""
        if rejection.reason == containers.REASON:
            self._foreign.begin(stream, session, rejection.detail, now)
        current = self.current.get(stream)
        if current is not None and current.owns(session):
            current.rejected |= rejection.reason != "overlap"  # that audio is not lost
            session = current.origin.session
        reason, detail = rejection.reason, rejection.detail
        return [Rejected(stream=stream, session=session, reason=reason, detail=detail, cursor=cursor)]

    def replaced(self, detail: str, cursor: Cursor) -> list[SessionOutput]:
        """Tell every current session that its audio comes from another place now."""
        return [Replaced(session.origin, detail, cursor) for session in self.current.values()]

    def tick(self, now: float) -> list[SessionOutput]:
        """Apply the timeouts; call a few times a second."""
        return [output for session in list(self.current.values()) for output in self._time_out(session, now)]

    def tick_stream(self, stream: str, now: float) -> list[SessionOutput]:
        """Apply the timeouts to one stream. Call before each chunk if audio comes faster than real time."""
        session = self.current.get(stream)
        if session is not None and session.resumed is not None:
            session.last_message = session.resumed  # as if this daemon had been there all the time
        return [] if session is None else self._time_out(session, now)

    def end_all(self) -> list[SessionOutput]:
        """End every session, as at shutdown. Buffered audio becomes their last windows."""
        return [output for session in list(self.current.values()) for output in self._end(session)]

    def flush_all(self) -> list[SessionOutput]:
        """Close every open window, and go on."""
        return [output for s in list(self.current.values()) for output in self._take(s, s.audio.flush())]

    def position(self, session: Session) -> Checkpoint:
        """Up to where a current session is settled."""
        return session.position(declared=session.origin.stream in self._declared)

    def transcribed(self, window: Window) -> list[SessionOutput]:
        """Settle a window whose text was published."""
        return self._settle(window, Fate.TRANSCRIBED)

    def dropped(self, window: Window, reason: GapReason) -> list[SessionOutput]:
        """Settle a window that will not be transcribed."""
        gap = Gap(origin=window.origin, start=window.start, end=window.end, reason=reason, cursor=window.cursor)
        return [gap, *self._settle(window, reason)]

    def open_window(self, stream: str) -> tuple[str, int, int] | None:
        """Return session, sequence and sample count of the stream's open window.

        None without one, or if its producer wants no partials.
        """
        session = self.current.get(stream)
        if session is None or not (samples := session.audio.open_samples):
            return None
        if session.audio.preferences.partials is False:
            return None
        return session.origin.session, session.audio.sequence, samples

    def peek(self, stream: str) -> Window | None:
        """Return a copy of that window for a partial. It is not settled, and must not come back."""
        session = self.current.get(stream)
        return session.audio.peek() if session is not None else None

    def accounts(self) -> Iterable[tuple[Origin, Account]]:
        """The accounts of the current sessions."""
        return [(s.origin, s.ledger.account()) for s in self.current.values()]

    @property
    def buffered(self) -> int:
        """Samples that are in no span yet, over all streams."""
        return sum(session.audio.buffered for session in list(self.current.values()))

    @property
    def active(self) -> int:
        """Number of streams with a session that has not ended."""
        return len(self.current)

    @property
    def unsettled(self) -> int:
        """Samples without a fate, over all sessions, including ended ones."""
        return sum(s.ledger.pending for s in list(self._by_id.values()))

    def _time_out(self, session: Session, now: float) -> list[SessionOutput]:
        longest, preferred = self._options.session_timeout, session.audio.preferences.timeout
        if now - session.last_message < (longest if preferred is None else min(longest, preferred)):
            if session.idle or now - session.last_audio < self._options.stream_timeout:
                return []
            session.idle = True
            return self._take(session, session.audio.flush(Closed.PAUSE))
        return self._end(session)

    def _find(self, chunk: Chunk, frames: int, now: float) -> tuple[Session, list[SessionOutput]] | None:
        """The session for this chunk, opened if needed. None for an event without audio and without a session."""
        current = self.current.get(chunk.stream)
        if current is None or not current.owns(chunk.session):
            return self._begin(current, chunk, now) if frames or chunk.declared else None
        where = chunk if frames else current.audio.adopt(chunk)
        jump = current.audio.locate(where) - current.audio.head
        if jump > 0:
            current.check_ahead(where, frames, jump, now, self._options.stream_timeout)
        current.last_message, current.resumed = now, None
        if jump < 0 and frames and current.restarts(chunk, frames, jump, now):
            declared = self._declared.get(chunk.stream)
            session, outputs = self._open(chunk, self._new_id(), now, self._end(current))
            if declared is not None:
                self._declared[chunk.stream] = declared
            session.follow(current, chunk, frames, now)
            return session, outputs
        return current, []

    def _begin(self, current: Session | None, chunk: Chunk, now: float) -> tuple[Session, list[SessionOutput]]:
        """Open a session for a chunk whose id is not the current session's."""
        self._foreign.check_first(chunk)
        if current is not None:
            self._rivals.check(chunk, current, now)
            outputs = self._end(current)
            self._rivals.supersede(current)
            return self._open(chunk, self._name(chunk), now, outputs)
        if len(self.current) >= self._options.max_streams:
            raise Rejection("streams", f"MAX_STREAMS={self._options.max_streams} streams are open already")
        if (why := self.refuse()) is not None:
            raise Rejection("streams", why)
        return self._open(chunk, self._name(chunk), now, [])

    def _open(
        self, chunk: Chunk, name: str, now: float, outputs: list[SessionOutput]
    ) -> tuple[Session, list[SessionOutput]]:
        audio = AudioStream(Origin(chunk.stream, name, chunk.tenant), self._options.stream, chunk)
        ledger = Ledger(audio.start)
        session = Session(requested_id=chunk.session, audio=audio, ledger=ledger, last_message=now, last_audio=now)
        if chunk.declared:
            self._declared[chunk.stream] = chunk.format
        self.current[chunk.stream] = session
        self._by_id[chunk.stream, name] = session
        older, used = self._rivals.older(chunk.stream, now), self._used.carried(chunk.stream)
        return session, [*outputs, session.started(chunk, older, used)]

    def _name(self, chunk: Chunk) -> str:
        asked = chunk.session
        return self._new_id() if asked is None else self._used.unused(chunk.stream, asked, self._by_id)

    def _flush(self, session: Session, chunk: Chunk, frames: int) -> list[SessionOutput]:
        """Close the window, as a chunk of so many sample frames asks, and answer."""
        outputs = self._take(session, session.audio.flush(Closed.FLUSH))
        cursor = session.audio.answered(chunk, frames)
        return [*outputs, Flushed(session.origin, session.audio.head, cursor)]

    def _end(self, session: Session) -> list[SessionOutput]:
        stream = session.origin.stream
        outputs = self._take(session, session.audio.flush(Closed.END))
        session.over = True
        del self.current[stream]
        self._declared.pop(stream, None)
        self._used.remember(session.origin, session.requested_id)
        return outputs + self._finish(session)

    def _take(self, session: Session, items: list[TimelineItem]) -> list[SessionOutput]:
        """Enter new timeline items into the account."""
        if (counts := session.audio.counts.take()) is not None:
            self._tallies.add(session.origin.stream, counts)
            if counts.unmixed and not session.unmixed:
                session.unmixed = True
                self.unmixed.append(session.origin)
            if counts.trimmed and not session.trimmed:
                session.trimmed = True
                self.trimmed.append(session.origin)
        return [*session.enter(items, self._tallies)]

    def _settle(self, window: Window, fate: Fate | GapReason) -> list[SessionOutput]:
        session = self._by_id[window.origin.stream, window.origin.session]
        session.settle(window.start, window.end, fate, self._tallies)
        return self._finish(session)

    def _finish(self, session: Session) -> list[SessionOutput]:
        """Publish the end of an ended session once all its samples are settled, and forget it."""
        if not session.over or session.ledger.pending:
            return []
        del self._by_id[session.origin.stream, session.origin.session]
        return [Ended(session.origin, session.ledger.account(), session.audio.cursor)]
