"""One session: its audio, its account, and whether a chunk shows that its producer has restarted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Self

from transcriber.audio.ledger import Ledger
from transcriber.audio.segmenter import StreamOptions
from transcriber.audio.speech import SpeechEvents
from transcriber.audio.stream import AudioStream
from transcriber.domain.chunks import ChunkEvent, Cursor
from transcriber.domain.errors import Rejection
from transcriber.domain.events import Flushed, Started
from transcriber.domain.timeline import SAMPLE_RATE, Checkpoint, Fate, Gap, GapReason, Origin, Silence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from transcriber.audio.stream import TimelineItem
    from transcriber.domain.chunks import Chunk
    from transcriber.domain.events import Speech
    from transcriber.domain.measurements import Tallies

RESTARTED = 10 * SAMPLE_RATE  # a chunk that begins farther before the head shows a restart (P-15)
FARTHEST_JUMP = 3600 * SAMPLE_RATE  # a chunk that begins farther ahead has a broken offset (P-15)
# After this time without audio, offset 0 is a restart, whatever the chunk holds. Client libraries retry sooner.
_IDLE_SECS = 1.0
_ROUNDED = SAMPLE_RATE // 1000  # 1 ms: the overlap that a change of rate may cause
_NOWHERE = Cursor(1, 0)  # of live audio, which is not stored
_NEAR = SAMPLE_RATE  # 1 s: what an older run may lose between chunks, and how far ahead of the newer run it must be


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Limits: a number of streams, and timeouts in seconds without a message."""

    stream: StreamOptions = field(default_factory=StreamOptions)
    max_streams: int = 1000
    stream_timeout: float = 5.0
    session_timeout: float = 300.0


class Rival(NamedTuple):
    """A superseded run of chunks that may continue: where its next chunk would begin, and when it last sent."""

    head: int
    seen: float


@dataclass(slots=True, kw_only=True)
class Session:
    """Times are seconds on the clock that `Sessions` is given."""

    requested_id: str | None  # the id in its chunks; differs from the origin's if an earlier session with it has ended
    audio: AudioStream
    ledger: Ledger
    last_message: float
    last_audio: float  # when new audio last came
    contested: float = 0.0  # when a chunk last brought other audio for this session's beginning
    resumed: float | None = None  # when the last message of an earlier daemon was stored; None after the next one
    rival: Rival | None = None  # the run of the same id that this session superseded
    idle: bool = False  # STREAM_TIMEOUT_SECS has passed, and the window is closed
    rejected: bool = False  # a chunk was rejected after the last accepted one
    unmixed: bool = False  # a single channel was taken, as the channels cancel each other
    trimmed: bool = False  # some audio was sent again
    speech_events: SpeechEvents = field(default_factory=SpeechEvents)
    over: bool = False

    @classmethod
    def from_checkpoint(cls, at: Checkpoint, options: StreamOptions, now: float) -> Self:
        """Continue a session of an earlier daemon."""
        audio, ledger = AudioStream.resumed(at, options), Ledger.resumed(at.position, at.account)
        stored = at.cursor.mark.time if at.cursor.mark is not None else None
        return cls(
            requested_id=at.requested_id,
            audio=audio,
            ledger=ledger,
            last_message=now,
            last_audio=now if stored is None else stored,
            resumed=stored,
        )

    def position(self, *, declared: bool) -> Checkpoint:
        """Up to where the session is settled. What has been settled beyond that counts too, in its account alone."""
        account = self.ledger.account()
        return Checkpoint(
            origin=self.origin,
            requested_id=self.requested_id,
            format=self.audio.format,
            position=self.ledger.settled,
            sequence=self.audio.sequence,
            account=replace(account, received=account.received - account.pending, pending=0),
            cursor=self.audio.cursor or _NOWHERE,
            declared=declared,
        )

    @property
    def origin(self) -> Origin:
        return self.audio.origin

    def owns(self, session: str | None) -> bool:
        """Whether a chunk with this id belongs here."""
        if session is None or session == self.requested_id:  # the usual case, so without building a set
            return True
        return session == self.audio.origin.session

    def started(self, chunk: Chunk, older: tuple[str, ...], used: Mapping[str, int]) -> Started:
        """The event of its start, with its first chunk."""
        return Started(
            origin=self.origin,
            requested_id=chunk.session,
            position=self.audio.start,
            cursor=chunk.cursor,
            older=older,
            used=used,
            declared=chunk.declared,
            format=chunk.format,
        )

    def accept(self) -> GapReason:
        """Note that a chunk is accepted. Returns the reason for a hole before it."""
        rejected, self.rejected = self.rejected, False
        return GapReason.UNDECODABLE if rejected else GapReason.LOST_UPSTREAM

    def enter(self, items: Sequence[TimelineItem], tallies: Tallies) -> Iterable[TimelineItem | Speech]:
        """Enter new timeline items into the account. Returns them, among speech events if the producer wants those."""
        ledger = self.ledger
        if arrived := self.audio.head - ledger.head:
            tallies.audio.add(self.origin.stream, "received", arrived)
        ledger.advance(self.audio.head)
        for item in items:
            match item:
                case Silence(_, start, end):
                    self.settle(start, end, Fate.SILENT, tallies)
                case Gap(origin=_, start=start, end=end, reason=reason):
                    self.settle(start, end, reason, tallies)
        if not self.audio.preferences.speech:
            return items
        return self.speech_events.among(items, self.origin, self.audio.speech_start)

    def settle(self, start: int, end: int, fate: Fate | GapReason, tallies: Tallies) -> None:
        """Enter the fate of [start, end) into the account."""
        self.ledger.settle(start, end, fate)
        tallies.audio.add(self.origin.stream, fate, end - start)

    def follow(self, old: Session, chunk: Chunk, frames: int, now: float) -> None:
        """Begin with a chunk that contradicts the old session, which may continue if another producer sent it."""
        if old.audio.locate(chunk) - old.audio.head < -RESTARTED or old._contradicts(chunk, frames):
            self.rival = Rival(old.audio.head, now)

    def check_ahead(self, chunk: Chunk, frames: int, jump: int, now: float, patience: float) -> None:
        """Raise `Rejection` for a chunk `jump` samples ahead, if that is too far or continues the superseded run."""
        if jump > FARTHEST_JUMP:
            raise Rejection(
                "offset", f"Audio-Offset={chunk.offset} lies {jump / SAMPLE_RATE:.0f} s ahead; at most 3600"
            )
        if self.rival is None:
            return
        if now - self.rival.seen >= patience:
            self.rival = None
            return
        at = self.audio.head + jump
        if jump > _NEAR and 0 <= at - self.rival.head <= _NEAR:
            self.rival = Rival(at + frames * SAMPLE_RATE // chunk.format.rate, now)
            raise Rejection(
                "superseded", f"Audio-Offset={chunk.offset} goes on where another producer of this session began again"
            )

    def restarts(self, chunk: Chunk, frames: int, jump: int, now: float) -> bool:
        """Whether a chunk that begins `jump` samples from the head shows that its producer has restarted (P-15).

        Raises `Rejection` if it contradicts the audio so far and the producer has not restarted.
        """
        if jump > -_ROUNDED:
            return False
        quiet = now - max(self.last_audio, self.contested) >= _IDLE_SECS
        if jump < -RESTARTED or (quiet and not chunk.offset):
            return True
        if not self._contradicts(chunk, frames):
            return False
        if quiet or (not chunk.offset and self._established(now)):
            return True
        raise Rejection(
            "overlap", f"Audio-Offset={chunk.offset}: this was not heard there; another producer, or a wrong offset"
        )

    def _contradicts(self, chunk: Chunk, frames: int) -> bool:
        """Whether a chunk from before the head is no repeat: it differs, or ends before the session's start."""
        end = self.audio.locate(chunk) + frames * SAMPLE_RATE // chunk.format.rate
        return end <= self.ledger.start or self.audio.differs(chunk)

    def _established(self, now: float) -> bool:
        """Whether the session is a second long. A producer whose offsets are always 0 makes a session per chunk."""
        if self.audio.head - self.ledger.start >= _IDLE_SECS * SAMPLE_RATE:
            return True
        self.contested = now
        return False


def unheard(chunk: Chunk) -> Iterator[Flushed]:
    """Yield the answer to a chunk that has no audio and no session. A flush has nothing to wait for there."""
    if chunk.event is ChunkEvent.FLUSH:
        where = round((chunk.offset or 0) * SAMPLE_RATE / chunk.format.rate)
        after = replace(chunk.cursor, seq=chunk.cursor.seq + 1, frame=0) if chunk.cursor is not None else None
        yield Flushed(Origin(chunk.stream, chunk.session or "", chunk.tenant), where, after)
