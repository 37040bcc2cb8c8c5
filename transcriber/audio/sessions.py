"""Which session of which stream a chunk belongs to, when sessions end, and what became of their audio."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from transcriber.audio.foreign import Foreign
from transcriber.audio.ledger import Ledger
from transcriber.audio.rivals import Rivals
from transcriber.audio.session import Session
from transcriber.audio.stream import AudioStream, Piece, StreamOptions
from transcriber.audio.used import UsedNames
from transcriber.domain import containers
from transcriber.domain.chunks import AudioFormat, Chunk, ChunkEvent, Skipped, as_declared
from transcriber.domain.errors import Rejection
from transcriber.domain.events import Ended, Rejected, Started
from transcriber.domain.timeline import Account, Checkpoint, Fate, Gap, GapReason, Origin, Silence, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from transcriber.domain.chunks import Cursor
    from transcriber.domain.measurements import Tallies

Output = Started | Window | Silence | Gap | Ended | Rejected


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Limits in streams and in seconds without a message."""

    stream: StreamOptions = field(default_factory=StreamOptions)
    max_streams: int = 1000
    stream_timeout: float = 5.0
    session_timeout: float = 300.0


class Sessions:
    """Push chunks in, get what must be queued and published out; settle windows when their fate is known.

    Pure: `now` is any monotonic clock, in seconds. Every method returns outputs in the order in which they happened.
    Every `Window` given out must come back once, through `transcribed` or `dropped`.
    """

    def __init__(self, options: SessionOptions, new_id: Callable[[], str], tallies: Tallies) -> None:
        self._options = options
        self._new_id = new_id
        self._current: dict[str, Session] = {}
        self._by_id: dict[tuple[str, str], Session] = {}  # current ones, and ended ones with pending windows
        self._used = UsedNames()
        self._rivals = Rivals(options.stream_timeout)
        self._foreign = Foreign(options.stream_timeout)
        self._declared: dict[str, AudioFormat] = {}  # of streams whose session began with a WAV file's head
        self._tallies = tallies
        self.unmixed: list[Origin] = []  # sessions whose channels cancel each other, each once: for a log to take out
        self.trimmed: list[Origin] = []  # sessions that sent audio more than once, likewise

    def resume(self, at: Checkpoint, now: float) -> None:
        """Go on with a session that another daemon has left, or remember that it is over."""
        if at.over:
            self._used.remember(at.origin, at.asked)
            return
        session = Session.from_checkpoint(at, self._options.stream, now)
        if at.declared:
            self._declared[at.origin.stream] = at.format
        self._rivals.resume(at.origin.stream, at.older, session.last_audio)
        for name in at.older:
            self._used.remember(Origin(at.origin.stream, name), None)
        self._current[at.origin.stream] = self._by_id[at.origin.stream, at.origin.session] = session

    def format(self, origin: Origin) -> AudioFormat | None:
        """What a session's chunks are at present; None when it is over."""
        session = self._by_id.get((origin.stream, origin.session))
        return session.audio.format if session else None

    def receive(self, chunk: Chunk, now: float) -> list[Output]:
        """Take one chunk. Raises `Rejection` when it cannot belong to any session; nothing has changed then."""
        if self._foreign.files:
            self._foreign.check(chunk, now)
        if self._declared and chunk.stream in self._declared:
            chunk = as_declared(chunk, self._declared[chunk.stream])
        found = self._find(chunk, frames=chunk.frames, now=now)
        if found is None:
            return []
        session, outputs = found
        if not chunk.pcm:
            chunk = session.audio.adopt(chunk)
        before = session.audio.head
        pieces = session.audio.push(chunk, session.accept())
        if chunk.pcm and session.audio.head > before:
            session.last_audio, session.idle = now, False
        outputs += self._take(session, pieces)
        if chunk.event is ChunkEvent.FLUSH:
            outputs += self._take(session, session.audio.flush())
        elif chunk.event is ChunkEvent.END:
            outputs += self._end(session)
        return outputs

    def skip(self, skipped: Skipped, now: float) -> list[Output]:
        """Account for a chunk that was given up before it was decoded."""
        chunk, frames = skipped.chunk, skipped.frames
        if chunk.stream in self._declared:
            source, chunk = chunk, as_declared(chunk, self._declared[chunk.stream])
            frames = frames * source.format.frame_bytes // chunk.format.frame_bytes
        found = self._find(chunk, frames=frames, now=now)
        if found is None:
            return []
        session, outputs = found
        if frames:
            session.last_audio, session.idle = now, False
        else:
            chunk = session.audio.adopt(chunk)
        outputs += self._take(session, session.audio.skip(chunk, frames, GapReason.LAG, session.accept()))
        if chunk.event is ChunkEvent.END:
            outputs += self._end(session)
        return outputs

    def reject(
        self,
        stream: str,
        session: str | None,
        rejection: Rejection,
        cursor: Cursor | None = None,
        now: float = 0.0,
    ) -> list[Output]:
        """Note that a chunk of this stream was rejected: a hole after it will be called undecodable."""
        if rejection.reason == containers.REASON:
            self._foreign.begin(stream, session, rejection.detail, now)
        current = self._current.get(stream)
        if current is not None and current.owns(session):
            current.rejected |= rejection.reason != "overlap"  # what was there is not lost
            session = current.origin.session
        return [
            Rejected(stream=stream, session=session, reason=rejection.reason, detail=rejection.detail, cursor=cursor)
        ]

    def tick(self, now: float) -> list[Output]:
        """Apply the timeouts; call a few times a second."""
        return [output for session in list(self._current.values()) for output in self._time_out(session, now)]

    def tick_stream(self, stream: str, now: float) -> list[Output]:
        """Apply the timeouts to one stream; where audio comes faster than real time, call before each chunk."""
        session = self._current.get(stream)
        if session is not None and session.resumed is not None:
            session.last_message = session.resumed  # as if no other daemon had been there
        return [] if session is None else self._time_out(session, now)

    def end_all(self) -> list[Output]:
        """End every session, as at shutdown: what is buffered becomes its last windows."""
        return [output for session in list(self._current.values()) for output in self._end(session)]

    def transcribed(self, window: Window) -> list[Output]:
        """The window's text was published."""
        return self._settle(window, Fate.TRANSCRIBED)

    def dropped(self, window: Window, reason: GapReason) -> list[Output]:
        """The window will not be transcribed."""
        gap = Gap(origin=window.origin, start=window.start, end=window.end, reason=reason, cursor=window.cursor)
        return [gap, *self._settle(window, reason)]

    def open_window(self, stream: str) -> tuple[str, int, int] | None:
        """Return session, sequence and samples of the window that is open on the stream; None without one."""
        session = self._current.get(stream)
        if session is None or not (samples := session.audio.open_samples):
            return None
        return session.origin.session, session.audio.sequence, samples

    def peek(self, stream: str) -> Window | None:
        """Return that window as it stands, to be looked at and forgotten: it is not settled and must not come back."""
        session = self._current.get(stream)
        return session.audio.peek() if session is not None else None

    def accounts(self) -> Iterable[tuple[Origin, Account]]:
        """Where each current session stands."""
        return [(s.origin, s.ledger.account()) for s in self._current.values()]

    @property
    def buffered(self) -> int:
        """Samples that are not cut into windows yet, over all streams."""
        return sum(session.audio.buffered for session in list(self._current.values()))

    @property
    def active(self) -> int:
        """Streams with a session that has not ended."""
        return len(self._current)

    @property
    def unsettled(self) -> int:
        """Samples that still wait for their fate, over all sessions, ended ones included."""
        return sum(s.ledger.pending for s in list(self._by_id.values()))

    def _time_out(self, session: Session, now: float) -> list[Output]:
        if now - session.last_message >= self._options.session_timeout:
            return self._end(session)
        if not session.idle and now - session.last_audio >= self._options.stream_timeout:
            session.idle = True
            return self._take(session, session.audio.flush())
        return []

    def _find(self, chunk: Chunk, frames: int, now: float) -> tuple[Session, list[Output]] | None:
        """The session that takes this chunk, opened if need be; None when a bare event has nothing to act on."""
        current = self._current.get(chunk.stream)
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

    def _begin(self, current: Session | None, chunk: Chunk, now: float) -> tuple[Session, list[Output]]:
        """Open a session for a chunk of another id than the current one's."""
        self._foreign.check_first(chunk)
        if current is not None:
            self._rivals.check(chunk, current, now)
            outputs = self._end(current)
            self._rivals.supersede(current)
            return self._open(chunk, self._name(chunk), now, outputs)
        if len(self._current) >= self._options.max_streams:
            raise Rejection("streams", f"MAX_STREAMS={self._options.max_streams} streams are open already")
        return self._open(chunk, self._name(chunk), now, [])

    def _open(self, chunk: Chunk, name: str, now: float, outputs: list[Output]) -> tuple[Session, list[Output]]:
        audio = AudioStream(Origin(chunk.stream, name, chunk.tenant), self._options.stream, chunk)
        ledger = Ledger(audio.start)
        session = Session(asked=chunk.session, audio=audio, ledger=ledger, last_message=now, last_audio=now)
        if chunk.declared:
            self._declared[chunk.stream] = chunk.format
        self._current[chunk.stream] = session
        self._by_id[chunk.stream, name] = session
        older = self._rivals.older(chunk.stream, now)
        started = Started(session.origin, chunk.session, audio.start, chunk.cursor, older, chunk.declared)
        return session, [*outputs, started]

    def _name(self, chunk: Chunk) -> str:
        if chunk.session is None:
            return self._new_id()
        return self._used.unused(chunk.stream, chunk.session, self._by_id)

    def _end(self, session: Session) -> list[Output]:
        stream = session.origin.stream
        outputs = self._take(session, session.audio.flush())
        session.over = True
        del self._current[stream]
        self._declared.pop(stream, None)
        self._used.remember(session.origin, session.asked)
        return outputs + self._finish(session)

    def _take(self, session: Session, pieces: list[Piece]) -> list[Output]:
        """Bring the account up to what the audio stream has just decided."""
        ledger = session.ledger
        if arrived := session.audio.head - ledger.head:
            self._tallies.audio.add(session.origin.stream, "received", arrived)
        if (counts := session.audio.take_counts()) is not None:
            self._tallies.add(session.origin.stream, counts)
            if counts.unmixed and not session.unmixed:
                session.unmixed = True
                self.unmixed.append(session.origin)
            if counts.trimmed and not session.trimmed:
                session.trimmed = True
                self.trimmed.append(session.origin)
        ledger.advance(session.audio.head)
        for piece in pieces:
            match piece:
                case Silence(_, start, end):
                    self._count(session, start, end, Fate.SILENT)
                case Gap(origin=_, start=start, end=end, reason=reason):
                    self._count(session, start, end, reason)
        return [*pieces]

    def _count(self, session: Session, start: int, end: int, fate: Fate | GapReason) -> None:
        session.ledger.settle(start, end, fate)
        self._tallies.audio.add(session.origin.stream, fate, end - start)

    def _settle(self, window: Window, fate: Fate | GapReason) -> list[Output]:
        session = self._by_id[window.origin.stream, window.origin.session]
        self._count(session, window.start, window.end, fate)
        return self._finish(session)

    def _finish(self, session: Session) -> list[Output]:
        """An ended session whose samples are all settled is published and forgotten."""
        if not session.over or session.ledger.pending:
            return []
        del self._by_id[session.origin.stream, session.origin.session]
        return [Ended(session.origin, session.ledger.account(), session.audio.cursor)]
