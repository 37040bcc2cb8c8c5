"""What is told besides text: what happens to sessions, and where they stand. Pure."""

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
    asked: str | None = None
    position: int = 0
    cursor: Cursor | None = None  # of its first audio
    older: tuple[str, ...] = ()  # sessions whose producers may still go on
    declared: bool = False  # its first chunk began with a WAV file's head


@dataclass(frozen=True, slots=True)
class Ended:
    """A session is over and every sample of it is settled."""

    origin: Origin
    account: Account
    cursor: Cursor | None = None  # of what follows it


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """One chunk broke the wire protocol; nothing else changed."""

    stream: str
    session: str | None
    reason: str
    detail: str
    cursor: Cursor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Swapped:
    """Another model is at work: its file's sha256 and bytes, what it was measured at, and what was before."""

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
    """Recognised text held back as a hallucination. Bounds in samples on the session's timeline."""

    origin: Origin
    start: int
    end: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Lag:
    """How far stored audio is ahead of us: messages, and the age of the newest that we have, in seconds."""

    chunks: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where one session stands. `estimated_wait` in seconds; `lag` is that of all stored streams together."""

    origin: Origin
    account: Account
    pending_jobs: int
    queue_capacity: int
    estimated_wait: float
    rtf: float
    lag: Lag | None = None


Event = Started | Ended | Gap | Rejected | Suppressed
