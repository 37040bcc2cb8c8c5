"""What is published besides text: events of sessions, and their status. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transcriber.domain.timeline import Gap

if TYPE_CHECKING:
    from transcriber.domain.chunks import Cursor
    from transcriber.domain.timeline import Account, Origin


@dataclass(frozen=True, slots=True)
class Started:
    """A session's first chunk was accepted. `asked`: the id that its chunks carry, which an earlier session had."""

    origin: Origin
    requested_id: str | None = None
    position: int = 0
    cursor: Cursor | None = None  # of its first audio
    older: tuple[str, ...] = ()  # superseded sessions whose producers may still send
    declared: bool = False  # its first chunk began with a WAV header


@dataclass(frozen=True, slots=True)
class Ended:
    """A session is over, and all its samples are settled."""

    origin: Origin
    account: Account
    cursor: Cursor | None = None  # of the audio after it


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


Event = Started | Ended | Gap | Rejected | Replaced | Suppressed | TakenOver
