"""What is published besides text: events of sessions, and their status. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from transcriber.domain.timeline import Gap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transcriber.domain.chunks import AudioFormat, Cursor
    from transcriber.domain.timeline import Account, Closed, Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A session's first chunk was accepted. `asked`: the id that its chunks carry, which an earlier session had."""

    origin: Origin
    requested_id: str | None = None
    position: int = 0
    cursor: Cursor | None = None  # of its first audio
    older: tuple[str, ...] = ()  # superseded sessions whose producers may still send
    used: Mapping[str, int] = field(default_factory=dict)  # ids that earlier sessions had, and how many had each
    declared: bool = False  # its first chunk began with a WAV header
    format: AudioFormat | None = None  # of its first chunk


@dataclass(frozen=True, slots=True)
class Ended:
    """A session is over, and all its samples are settled."""

    origin: Origin
    account: Account
    cursor: Cursor | None = None  # of the audio after it


@dataclass(frozen=True, slots=True)
class Flushed:
    """Everything before `end` is settled, as a producer's `flush` asked (P-32). In samples on the timeline."""

    origin: Origin
    end: int
    cursor: Cursor | None = None  # of the message after the flush


@dataclass(frozen=True, slots=True)
class Speech:
    """A window of speech has opened at `start`, or has closed at `end` (P-33). In samples on the timeline."""

    origin: Origin
    start: int
    end: int | None = None
    closed: Closed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """One chunk broke the wire protocol; nothing else changed."""

    stream: str
    session: str | None
    reason: str
    detail: str
    cursor: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Replaced:
    """The stream of stored audio is another than the one that the session was read from."""

    origin: Origin
    detail: str
    cursor: Cursor | None = None  # where that stream goes on; None if the checkpoint says so already


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Another member of the fleet owns the stream now, as the one before did not give it up in order."""

    origin: Origin
    member: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Swapped:
    """The model was replaced: the new file's sha256 and size in bytes, its measured speed, and the old values."""

    model: str
    sha256: str
    size: int
    rtf: float
    queue_capacity: int
    before: str
    before_rtf: float
    before_queue_capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppressed:
    """Recognised text that was held back as made up. Bounds in samples on the session's timeline."""

    origin: Origin
    start: int
    end: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class ConsumerLag:
    """How much stored audio waits: messages, and the age in seconds of the newest message taken."""

    chunks: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The status of one session. `estimated_wait` in seconds; `lag` is that of all stored streams together."""

    origin: Origin
    account: Account
    pending_jobs: int
    queue_capacity: int
    estimated_wait: float
    rtf: float
    lag: ConsumerLag | None = None


Event = Started | Ended | Flushed | Speech | Gap | Rejected | Replaced | Suppressed | TakenOver
