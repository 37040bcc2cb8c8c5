"""A session's timeline: windows, silences and gaps that tile it, and the account of every sample. Pure.

Positions are integer indices of 16 kHz mono samples; bounds are half-open. Durations are seconds on the monotonic
clock. Seconds of audio appear only on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from transcriber.domain.chunks import AudioFormat, Cursor


SAMPLE_RATE = 16_000  # Hz: what Whisper takes; the unit of every timeline


class GapReason(StrEnum):
    """Why audio was not transcribed."""

    QUEUE_FULL = "queue_full"
    LOST_UPSTREAM = "lost_upstream"
    UNDECODABLE = "undecodable"
    SHUTDOWN = "shutdown"
    DEADLINE = "deadline"
    ENGINE_ERROR = "engine_error"
    LAG = "lag"


class Fate(StrEnum):
    """What became of a sample that is in no gap."""

    TRANSCRIBED = "transcribed"
    SILENT = "silent"


class Closed(StrEnum):
    """Why a window was closed (P-31)."""

    PAUSE = "pause"
    LENGTH = "length"
    FLUSH = "flush"
    END = "end"


@dataclass(frozen=True, slots=True)
class Origin:
    """Stream, session and tenant, which every outgoing message names."""

    stream: str
    session: str
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class Guidance:
    """How a window is decoded, besides its language. `prompt`: None for the setting's. `translate`: into English."""

    prompt: str | None = None
    translate: bool = False


UNGUIDED = Guidance()


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Speech for Whisper: float32 mono 16 kHz samples in [-1, 1], len(samples) == end - start."""

    origin: Origin
    sequence: int
    start: int
    end: int
    samples: NDArray[np.float32]
    voiced: float = 1.0  # share of its frames that the detector takes for speech
    closed: Closed | None = None  # None: it is still open
    language: str | None = None  # Whisper's code or "auto"; None: the setting
    guidance: Guidance = UNGUIDED
    traceparents: tuple[str, ...] = ()
    cursor: Cursor | None = None  # of the audio after it
    arrived: float | None = field(default=None, compare=False)  # when its first audio arrived, as in `Chunk`

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Silence:
    """Audio without speech."""

    origin: Origin
    start: int
    end: int
    cursor: Cursor | None = None  # of the audio after it


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Audio that was not transcribed, and why."""

    origin: Origin
    start: int
    end: int
    reason: GapReason
    cursor: Cursor | None = None  # of the audio after it


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Samples by fate: received = transcribed + silent + sum(gap) + pending."""

    received: int
    transcribed: int
    silent: int
    gap: Mapping[GapReason, int]  # only reasons that occurred
    pending: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A session's state when everything before `position` is settled and stored, and nothing after it."""

    origin: Origin
    requested_id: str | None  # the id in its chunks
    format: AudioFormat
    position: int
    sequence: int  # of its next window
    account: Account
    cursor: Cursor  # of the audio from `position` on
    over: bool = False
    older: tuple[str, ...] = ()  # superseded sessions whose producers may still send
    used: Mapping[str, int] = field(default_factory=dict)  # ids that earlier sessions had, and how many had each
    declared: bool = False  # its first chunk began with a WAV header, whose format holds for chunks that name none
