"""The types that travel between the layers. Slotted, all but one frozen, without behaviour beyond derived values.

Positions are integer indices of 16 kHz mono samples on the session's timeline; bounds are half-open. Durations are
seconds on the monotonic clock. Seconds of audio appear only on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

SAMPLE_RATE = 16_000  # Hz: what Whisper hears; the unit of every timeline


class Encoding(StrEnum):
    """How one sample of PCM is written."""

    S16LE = "pcm_s16le"
    F32LE = "pcm_f32le"
    MULAW = "pcm_mulaw"
    ALAW = "pcm_alaw"


SAMPLE_BYTES: Mapping[Encoding, int] = {Encoding.S16LE: 2, Encoding.F32LE: 4, Encoding.MULAW: 1, Encoding.ALAW: 1}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Raw interleaved PCM: encoding, sample frames a second, channels."""

    encoding: Encoding
    rate: int
    channels: int
    frame_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame_bytes", SAMPLE_BYTES[self.encoding] * self.channels)


class ChunkEvent(StrEnum):
    """What a producer asks for beside handing over audio."""

    FLUSH = "flush"
    END = "end"
    KEEPALIVE = "keepalive"


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """Where stored audio goes on: `frame` of the message with the stream sequence `seq`."""

    seq: int
    frame: int


@dataclass(slots=True)  # not frozen: one would take five times as long to make, and there are fifty a second and stream
class Chunk:
    """What a producer sent in one message: whole sample frames of raw PCM, possibly none. Nobody changes it."""

    stream: str
    format: AudioFormat
    pcm: bytes
    session: str | None = None  # None: the stream's current one
    offset: int | None = None  # of the first sample frame in the session, at this chunk's rate; None: contiguous
    event: ChunkEvent | None = None
    language: str | None = None  # Whisper's code or "auto"
    tenant: str | None = None
    traceparent: str | None = None
    cursor: Cursor | None = None  # of its first frame, where the audio is stored
    unknown_language: str | None = None  # what its header says, where that is no language that Whisper knows
    arrived: float | None = field(default=None, compare=False)  # on the monotonic clock, in seconds

    @property
    def frames(self) -> int:
        return len(self.pcm) // self.format.frame_bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """A chunk whose audio was given up before it was decoded: its bounds are known, its samples are not needed.

    Or several that follow each other, as one: `chunk` is the first of them with the event of the last.
    """

    chunk: Chunk  # with empty pcm
    frames: int
    chunks: int = 1

    def and_then(self, more: Skipped) -> Skipped | None:
        """Make one of the two; None when the other one does not follow right behind."""
        chunk = self.chunk
        end = None if chunk.offset is None else chunk.offset + self.frames
        follows = (more.chunk.session, more.chunk.format, more.chunk.offset) == (chunk.session, chunk.format, end)
        if chunk.event is not None or not follows:
            return None
        return Skipped(replace(chunk, event=more.chunk.event), self.frames + more.frames, self.chunks + more.chunks)


class GapReason(StrEnum):
    """Why audio was not transcribed."""

    QUEUE_FULL = "queue_full"
    LOST_UPSTREAM = "lost_upstream"
    UNDECODABLE = "undecodable"
    SHUTDOWN = "shutdown"
    DEADLINE = "deadline"
    ENGINE_ERROR = "engine_error"
    LAG = "lag"


@dataclass(frozen=True, slots=True)
class Origin:
    """Which session of which stream, and for whom: what every message that goes out says."""

    stream: str
    session: str
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Speech for Whisper: float32 mono 16 kHz samples in [-1, 1], len(samples) == end - start."""

    origin: Origin
    sequence: int
    start: int
    end: int
    samples: NDArray[np.float32]
    voiced: float = 1.0  # share of the window's frames that the voice activity detector took for speech
    language: str | None = None  # Whisper's code or "auto"; None: the setting
    traceparents: tuple[str, ...] = ()
    cursor: Cursor | None = None  # of what follows it
    arrived: float | None = field(default=None, compare=False)  # when its first audio did, as in `Chunk`

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Silence:
    """Audio without speech."""

    origin: Origin
    start: int
    end: int
    cursor: Cursor | None = None  # of what follows it


@dataclass(frozen=True, slots=True)
class Gap:
    """Audio that was not transcribed, and why."""

    origin: Origin
    start: int
    end: int
    reason: GapReason
    cursor: Cursor | None = None  # of what follows it


@dataclass(frozen=True, slots=True)
class Account:
    """Samples by fate: received = transcribed + silent + sum(gap) + pending."""

    received: int
    transcribed: int
    silent: int
    gap: Mapping[GapReason, int]  # only reasons that occurred
    pending: int


@dataclass(frozen=True, slots=True)
class Started:
    """A session's first chunk was accepted. `asked`: the id that its chunks carry, which an earlier session had."""

    origin: Origin
    asked: str | None = None
    position: int = 0
    cursor: Cursor | None = None  # of its first audio


@dataclass(frozen=True, slots=True)
class Ended:
    """A session is over and every sample of it is settled."""

    origin: Origin
    account: Account
    cursor: Cursor | None = None  # of what follows it


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A session as it stands when everything before `position` is settled and stored, and nothing behind it."""

    origin: Origin
    asked: str | None  # the id that its chunks carry
    format: AudioFormat
    position: int
    sequence: int  # of its next window
    account: Account
    cursor: Cursor  # of what follows
    over: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """One chunk broke the wire protocol; nothing else changed."""

    stream: str
    session: str | None
    reason: str
    detail: str
    cursor: Cursor | None = None


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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
