"""The types that travel between the layers. Frozen, slotted, without behaviour beyond derived values.

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


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a producer sent in one message: whole sample frames of raw PCM, possibly none."""

    stream: str
    format: AudioFormat
    pcm: bytes
    session: str | None = None  # None: the stream's current one
    offset: int | None = None  # of the first sample frame in the session, at this chunk's rate; None: contiguous
    event: ChunkEvent | None = None
    language: str | None = None
    tenant: str | None = None
    traceparent: str | None = None

    @property
    def frames(self) -> int:
        return len(self.pcm) // self.format.frame_bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """A chunk whose audio was given up before it was decoded: its bounds are known, its samples are not needed."""

    chunk: Chunk  # with empty pcm
    frames: int


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
    language: str | None = None  # ISO 639-1 hint or "auto"; None: the setting
    traceparents: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Silence:
    """Audio without speech."""

    origin: Origin
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Audio that was not transcribed, and why."""

    origin: Origin
    start: int
    end: int
    reason: GapReason


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
    """A session's first chunk was accepted."""

    origin: Origin


@dataclass(frozen=True, slots=True)
class Ended:
    """A session is over and every sample of it is settled."""

    origin: Origin
    account: Account


@dataclass(frozen=True, slots=True)
class Rejected:
    """One chunk broke the wire protocol; nothing else changed."""

    stream: str
    session: str | None
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Lost:
    """Messages that were lost without a trace of where they belonged: outside the account."""

    stream: str
    session: str | None
    messages: int


@dataclass(frozen=True, slots=True)
class Suppressed:
    """Recognised text held back as a hallucination. Bounds in samples on the session's timeline."""

    origin: Origin
    start: int
    end: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Word:
    """Bounds in samples from the window's first sample; confidence in [0, 1]."""

    text: str
    start: int
    end: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of text as Whisper returned it. Bounds in samples from the window's first sample."""

    text: str
    start: int
    end: int
    confidence: float
    words: tuple[Word, ...] = ()

    def shifted(self, by: int) -> Segment:
        """The same segment, its bounds counted from `by` samples earlier."""
        words = tuple(replace(w, start=w.start + by, end=w.end + by) for w in self.words)
        return replace(self, start=self.start + by, end=self.end + by, words=words)


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A segment that the guards suppressed, and the signals that said so."""

    segment: Segment
    reason: str


@dataclass(frozen=True, slots=True)
class Recognition:
    """What one pass of the engine made of one window, after the guards."""

    segments: tuple[Segment, ...]
    language: str
    model: str
    held_back: tuple[HeldBack, ...] = ()

    @property
    def text(self) -> str:
        return " ".join(s.text for s in self.segments)

    @property
    def confidence(self) -> float:
        """Mean of the segments' confidences, weighted by their words; 0.0 without text."""
        weight = sum(max(1, len(s.words)) for s in self.segments)
        return sum(s.confidence * max(1, len(s.words)) for s in self.segments) / weight if weight else 0.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds: waiting in the queue, in the engine, and from try-put to publish."""

    queue: float
    processing: float
    end_to_end: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """The text of [start, end) of a timeline, ready to publish. Segments count from `start`."""

    origin: Origin
    sequence: int
    start: int
    end: int
    recognition: Recognition
    latency: Latency

    @property
    def rtf(self) -> float:
        """Real-time factor: processing time over the audio's length."""
        return self.latency.processing * SAMPLE_RATE / (self.end - self.start) if self.end > self.start else 0.0


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What an open window seems to say so far: the newest pass, the text to show, and the part that will stay."""

    transcript: Transcript
    text: str
    stable: str


@dataclass(frozen=True, slots=True)
class Status:
    """Where one session stands. `estimated_wait` in seconds."""

    origin: Origin
    account: Account
    pending_jobs: int
    queue_capacity: int
    estimated_wait: float
    rtf: float


Event = Started | Ended | Gap | Rejected | Lost | Suppressed
