"""What a producer sends. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from transcriber.domain.errors import Rejection

if TYPE_CHECKING:
    from collections.abc import Mapping


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

    @property
    def wide(self) -> bool:
        """Whether a sample has more than a byte."""
        return self.frame_bytes > self.channels


class ChunkEvent(StrEnum):
    """What a producer may ask for besides handing over audio."""

    FLUSH = "flush"
    END = "end"
    KEEPALIVE = "keepalive"


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """Where stored audio goes on: `frame` of the message with the stream sequence `seq`.

    `time`: when that message was stored, or the last one with audio before it; in seconds since 1970.
    """

    seq: int
    frame: int
    time: float | None = field(default=None, compare=False)


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
    unknown_header: tuple[str, str | None] | None = None  # a name that is none of ours, and the one that was meant
    names_rate: bool = True  # its header does; else the rate is a default
    declared: bool = False  # its format is that of a WAV file's head, which also goes for what follows without headers
    arrived: float | None = field(default=None, compare=False)  # on the monotonic clock, in seconds

    @property
    def frames(self) -> int:
        return len(self.pcm) // self.format.frame_bytes


def as_declared(chunk: Chunk, declared: AudioFormat) -> Chunk:
    """The chunk in the format that its session's first one declared, unless it names another itself.

    Raises `Rejection` when it is not a whole number of sample frames then.
    """
    if chunk.names_rate or chunk.declared or chunk.format == declared:
        return chunk
    check_frames(chunk.pcm, declared)
    return replace(chunk, format=declared)


def check_frames(payload: bytes, chosen: AudioFormat) -> None:
    """Raise `Rejection` unless the payload is a whole number of sample frames."""
    if len(payload) % chosen.frame_bytes:
        raise Rejection(
            "partial_frame",
            f"{len(payload)} bytes are not a whole number of {chosen.frame_bytes}-byte sample frames "
            f"({chosen.encoding}, {chosen.channels} channels)",
        )


@dataclass(frozen=True, slots=True)
class Skipped:
    """A chunk whose audio was given up before it was decoded: its bounds are known, its samples are not needed.

    Or several that follow each other, as one: `chunk` is the first of them with the event of the last.
    """

    chunk: Chunk  # with empty pcm
    frames: int
    chunks: int = 1

    def and_then(self, more: Skipped) -> Skipped | None:
        """Make one of the two; None when the other one does not follow it directly."""
        chunk = self.chunk
        end = None if chunk.offset is None else chunk.offset + self.frames
        follows = (more.chunk.session, more.chunk.format, more.chunk.offset) == (chunk.session, chunk.format, end)
        if chunk.event is not None or not follows:
            return None
        return Skipped(replace(chunk, event=more.chunk.event), self.frames + more.frames, self.chunks + more.chunks)
