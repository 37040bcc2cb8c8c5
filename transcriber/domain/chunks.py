"""Chunks of audio, as a producer sends them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from transcriber.domain.errors import Rejection

if TYPE_CHECKING:
    from collections.abc import Mapping


class Encoding(StrEnum):
    """How one sample of PCM is encoded."""

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
        """Whether a sample has more than one byte."""
        return self.frame_bytes > self.channels


class ChunkEvent(StrEnum):
    """What a producer may ask for besides handing over audio."""

    FLUSH = "flush"
    END = "end"
    KEEPALIVE = "keepalive"


@dataclass(frozen=True, slots=True)
class Mark:
    """A stored message that was read: by its number and time (seconds since 1970) its stream can be known again."""

    seq: int
    time: float


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in stored audio: `frame` of the message with the stream sequence `seq`.

    `time`: when that message was stored, or the last message with audio before it. In seconds since 1970.
    """

    seq: int
    frame: int
    mark: Mark | None = field(default=None, compare=False)  # that message, or the one before it


@dataclass(frozen=True, slots=True)
class Moved:
    """The stored audio is another than what was read so far; it goes on at `cursor`, as `detail` says."""

    detail: str
    cursor: Cursor


class IgnoredHeader(NamedTuple):
    """A header whose value is not allowed, and what is."""

    header: str
    value: str
    allowed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """What a producer asks for besides the defaults; None leaves a choice to the daemon.

    - `speech`: events when windows open and close.
    - `prompt`: text for the decoder, empty for none; `translate`: English text, whatever is spoken.
    - `timeout`: seconds without a message that end the session.
    - `pause`: seconds without speech that close a window.
    - `partials`: texts of windows that are still open.
    """

    speech: bool | None = None
    prompt: str | None = None
    translate: bool | None = None
    timeout: float | None = None
    pause: float | None = None
    partials: bool | None = None
    ignored: tuple[IgnoredHeader, ...] = ()

    def over(self, older: Preferences) -> Preferences:
        """Return these, with the older ones where these say nothing."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(older, **{name: value for name, value in given.items() if value is not None})


DEFAULTS = Preferences()


@dataclass(slots=True)  # not frozen: that takes five times as long to make, 50 times a second for each stream
class Chunk:
    """One message of a producer: whole sample frames of raw PCM, possibly none. Must not be changed."""

    stream: str
    format: AudioFormat
    pcm: bytes
    session: str | None = None  # None: the stream's current session
    offset: int | None = None  # of its first sample frame in the session, at its own rate; None: follows the last one
    event: ChunkEvent | None = None
    language: str | None = None  # Whisper's code or "auto"
    tenant: str | None = None
    traceparent: str | None = None
    cursor: Cursor | None = None  # of its first frame, if the audio is stored
    preferences: Preferences | None = None
    unknown_language: str | None = None  # the header's value, if Whisper does not know that language
    unknown_header: tuple[str, str | None] | None = None  # a header name that does not exist, and the closest that does
    names_rate: bool = True  # its headers name the rate; else it is the default
    declared: bool = False  # its format is from a WAV header, and also holds for the chunks after it
    arrived: float | None = field(default=None, compare=False)  # on the monotonic clock, in seconds

    @property
    def frames(self) -> int:
        return len(self.pcm) // self.format.frame_bytes


def as_declared(chunk: Chunk, declared: AudioFormat) -> Chunk:
    """Return the chunk in the format that its session's first chunk declared, unless it names its own.

    Raises `Rejection` if it is not a whole number of sample frames in that format.
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
class DroppedChunk:
    """A chunk that was dropped before it was decoded: only its bounds are kept.

    It may stand for several contiguous chunks. Then `chunk` is the first of them, with the event of the last.
    """

    chunk: Chunk  # with empty pcm
    frames: int
    chunks: int = 1

    def merged(self, more: DroppedChunk) -> DroppedChunk | None:
        """Merge with `more`. None if that is not contiguous, or this ends with an event."""
        chunk = self.chunk
        end = None if chunk.offset is None else chunk.offset + self.frames
        follows = (more.chunk.session, more.chunk.format, more.chunk.offset) == (chunk.session, chunk.format, end)
        if chunk.event is not None or not follows:
            return None
        return DroppedChunk(
            replace(chunk, event=more.chunk.event), self.frames + more.frames, self.chunks + more.chunks
        )


class MalformedMessage:
    """A message that breaks the wire protocol; `stream` is None when its subject names none."""

    __slots__ = ("cursor", "rejection", "session", "stream")

    def __init__(
        self, stream: str | None, session: str | None, rejection: Rejection, cursor: Cursor | None = None
    ) -> None:
        self.stream = stream
        self.session = session
        self.rejection = rejection
        self.cursor = cursor  # where the message is stored


# What a source of audio yields for a message, or for several that were dropped.
Arrival = Chunk | DroppedChunk | Moved | MalformedMessage
