"""One session: its audio, its account, and when a chunk shows that its producer began again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

from transcriber.audio.ledger import Ledger
from transcriber.audio.stream import AudioStream
from transcriber.domain.errors import Rejection
from transcriber.domain.timeline import SAMPLE_RATE, GapReason

if TYPE_CHECKING:
    from transcriber.audio.stream import StreamOptions
    from transcriber.domain.chunks import Chunk
    from transcriber.domain.timeline import Checkpoint, Origin

RESTARTED = 10 * SAMPLE_RATE  # a start further behind the head is a producer that began again (P-15)
FARTHEST_JUMP = 3600 * SAMPLE_RATE  # a start further ahead is a broken offset (P-15)
# Without audio: then offset 0 is a restart whatever it holds. A client library's own retries come sooner.
_IDLE_SECS = 1.0
_ROUNDED = SAMPLE_RATE // 1000  # a millisecond: an overlap that a change of rate may make
_NEAR = SAMPLE_RATE  # what an older run may lose between two chunks, and how far ahead of the newer one it must be


class Rival(NamedTuple):
    """A run of chunks that may go on: where its next one would lie, and when it was last heard of."""

    head: int
    seen: float


@dataclass(slots=True, kw_only=True)
class Session:
    """Times are seconds on the clock that `Sessions` is given."""

    asked: str | None  # the id its chunks carry; differs from the origin's when that one had ended before
    audio: AudioStream
    ledger: Ledger
    last_message: float
    last_audio: float  # when something new was heard
    contested: float = 0.0  # when a chunk last claimed this session's beginning for other audio
    resumed: float | None = None  # when the last message was stored that an earlier daemon had; until the next one
    rival: Rival | None = None  # the run of the same id that this one took the stream from
    idle: bool = False  # STREAM_TIMEOUT_SECS has passed and the window is closed
    rejected: bool = False  # a chunk was rejected since the last accepted one
    unmixed: bool = False  # a channel was taken by itself, because the mean would have lost it
    trimmed: bool = False  # audio came that was here already
    over: bool = False

    @classmethod
    def from_checkpoint(cls, at: Checkpoint, options: StreamOptions, now: float) -> Self:
        """Go on with a session that another daemon has left."""
        audio, ledger = AudioStream.resumed(at, options), Ledger.resumed(at.position, at.account)
        stored = at.cursor.time
        return cls(
            asked=at.asked,
            audio=audio,
            ledger=ledger,
            last_message=now,
            last_audio=now if stored is None else stored,
            resumed=stored,
        )

    @property
    def origin(self) -> Origin:
        return self.audio.origin

    def owns(self, session: str | None) -> bool:
        """Whether a chunk with this id belongs here."""
        if session is None or session == self.asked:  # as every chunk is but a few: no set to make
            return True
        return session == self.audio.origin.session

    def accept(self) -> GapReason:
        """What to call a hole in front of the chunk that is taken now."""
        rejected, self.rejected = self.rejected, False
        return GapReason.UNDECODABLE if rejected else GapReason.LOST_UPSTREAM

    def follow(self, old: Session, chunk: Chunk, frames: int, now: float) -> None:
        """Begin with a chunk that the old session could not hold: if another producer sent it, the old one goes on."""
        if old.audio.locate(chunk) - old.audio.head < -RESTARTED or old._contradicts(chunk, frames):
            self.rival = Rival(old.audio.head, now)

    def check_ahead(self, chunk: Chunk, frames: int, jump: int, now: float, patience: float) -> None:
        """Raise `Rejection` for a chunk `jump` samples ahead: too far, or where the older run of this id goes on."""
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
        """Whether this chunk, whose audio begins `jump` samples from the head, is its producer's new beginning (P-15).

        Raises `Rejection` when it contradicts what was heard while that is going on.
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
        """Whether the chunk, which begins before the head, is no repeat: it differs, or was over before the start."""
        end = self.audio.locate(chunk) + frames * SAMPLE_RATE // chunk.format.rate
        return end <= self.ledger.start or self.audio.differs(chunk)

    def _established(self, now: float) -> bool:
        """Whether this session is more than what a producer makes whose offsets are always 0, one with each chunk."""
        if self.audio.head - self.ledger.start >= _IDLE_SECS * SAMPLE_RATE:
            return True
        self.contested = now
        return False
