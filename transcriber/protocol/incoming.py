"""Incoming messages: subjects and headers to chunks. Pure. `outgoing.py` has the other direction."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from transcriber.domain import containers, languages
from transcriber.domain.chunks import AudioFormat, Chunk, ChunkEvent, DroppedChunk, Encoding, check_frames
from transcriber.domain.errors import Rejection
from transcriber.domain.wav import wav_head
from transcriber.protocol import headers as names
from transcriber.protocol.preferences import preferences_of

if TYPE_CHECKING:
    from collections.abc import Mapping

AUDIO = "audio"  # audio.<stream>
TRANSCRIBE = "transcribe"  # transcribe.<name>
CONTROL_MODEL = "transcriber.control.model"  # plus `key_of` the daemon's audio subject

AUDIO_STREAM = "AUDIO"  # JetStream's stream of audio.*
TRANSCRIPT_STREAM = "TRANSCRIPTS"  # JetStream's stream of transcript.*.final and transcript.*.event
NO_MESSAGE = 10037  # JetStream's code for "no message found"; a missing stream has another code
LEASES = "TRANSCRIBER_LEASES"  # the bucket that says which daemon works on which subject


ENCODING, RATE, CHANNELS = names.ENCODING, names.RATE, names.CHANNELS
SESSION, OFFSET, LANGUAGE = names.SESSION, names.OFFSET, names.LANGUAGE
TENANT, EVENT, TRACEPARENT = names.TENANT, names.EVENT, names.TRACEPARENT
UNREADABLE, fields = names.UNREADABLE, names.fields
_LINE = b"\r\n"  # ends each header line
_OFFSET_LINE = b"\r\n" + OFFSET.encode() + b":"
_LOWER_OFFSET_LINE = _OFFSET_LINE.lower()
_REMEMBERED_BYTES = 2048  # of a header block: good ones have 200 to 600, or with a prompt 1600; thousands are kept

RATES = range(8000, 192_001)  # Hz
CHANNEL_COUNTS = range(1, 9)

_SHOWN = 160  # characters of a bad value that a rejection repeats; the longest good value has 128
_STREAM = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PARTITION = re.compile(r"[0-9]{1,4}")
_BEFORE_STREAM = re.compile(r"[A-Za-z0-9_-]{1,32}(\.[0-9]{1,4})?")  # a partition, a group, or both
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,128}")
_DIGITS = 15  # of an offset: 4,000 years at 8 kHz, and still exact as a float of seconds
_NUMBER = re.compile(rf"[0-9]{{1,{_DIGITS}}}")
# W3C trace context: version, trace id, parent id, flags; all-zero ids and version ff are invalid.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


@dataclass(frozen=True, slots=True)
class InputOptions:
    """The format of a chunk without headers, and the most payload bytes of a chunk."""

    format: AudioFormat = field(default_factory=lambda: AudioFormat(Encoding.S16LE, 48_000, 1))
    max_chunk_bytes: int = 1_048_576


def is_stream(name: str) -> bool:
    """Whether `name` may be a stream id."""
    return _STREAM.fullmatch(name) is not None


def key_of(subject: str) -> str:
    """A name for `audio.<stream>`, `audio.*`, a group's `audio.<group>.*` or a partition's `audio.<p>.*`."""
    name, _, rest = subject.partition(".")[2].partition(".")
    if rest:
        return f"=p{name}" if _PARTITION.fullmatch(name) else f"=all-{name}"
    return "=all" if name == "*" else name  # "=" is allowed there, but not in a stream's name


def consumer_of(subject: str) -> str:
    """The name of the consumer of a subject's stored audio."""
    return f"transcriber-{key_of(subject)}"


def model_control_of(subject: str) -> str:
    """The subject on which the daemon of an audio subject takes requests for another model."""
    return f"{CONTROL_MODEL}.{key_of(subject)}"


def stream_of(subject: str) -> str:
    """Return the stream that an audio or request subject names. Raises `Rejection` with the reason `stream`."""
    name = name_in(subject)
    if not is_stream(name):
        raise Rejection("stream", f"subject {_quoted(subject)} names no stream: [A-Za-z0-9_-]{{1,64}} is allowed")
    return name


def name_in(subject: str) -> str:
    """What stands for the stream in an audio or request subject, after its group and its partition if it has them."""
    name = subject.partition(".")[2]
    before, _, last = name.rpartition(".")
    return last if _BEFORE_STREAM.fullmatch(before) else name


def session_of(headers: Mapping[str, str] | None) -> str | None:
    """Return the session in the headers; None if there is none or a bad one."""
    return _matching(_PRINTABLE, names.canonical(headers).get(SESSION))


def language_of(headers: Mapping[str, str]) -> str | None:
    """Return the language hint as Whisper's code or `auto`; None if there is none or an unknown one."""
    return languages.code(headers.get(LANGUAGE, ""))


def unknown_language_of(headers: Mapping[str, str]) -> str | None:
    """Return a language hint that Whisper does not know, or its beginning; None if there is none or a good one."""
    value = headers.get(LANGUAGE)
    return value[:_SHOWN] if value and languages.code(value) is None else None


def tenant_of(headers: Mapping[str, str]) -> str | None:
    """Return the tenant; None if there is none or one that is not printable."""
    return _matching(_PRINTABLE, headers.get(TENANT))


def traceparent_of(headers: Mapping[str, str]) -> str | None:
    """Return the trace context in the headers; None if there is none or a bad one."""
    return _matching(_TRACEPARENT, headers.get(TRACEPARENT))


def audio_format(headers: Mapping[str, str], default: AudioFormat) -> AudioFormat:
    """Return the format in the headers. Raises `Rejection` with the reason `encoding`, `rate` or `channels`."""
    return _audio_format(headers.get(ENCODING), headers.get(RATE), headers.get(CHANNELS), default)


@lru_cache(maxsize=256)
def _audio_format(encoding: str | None, rate: str | None, channels: str | None, default: AudioFormat) -> AudioFormat:
    if encoding is None and rate is None and channels is None:
        return default
    try:
        code = default.encoding if encoding is None else Encoding(encoding)
    except ValueError:
        raise Rejection("encoding", f"{ENCODING}={_quoted(str(encoding))}; allowed: {', '.join(Encoding)}") from None
    hertz = default.rate if rate is None else _number("rate", RATE, rate, RATES)
    count = default.channels if channels is None else _number("channels", CHANNELS, channels, CHANNEL_COUNTS)
    return AudioFormat(code, hertz, count)


def _number(reason: str, header: str, value: str, allowed: range | None = None) -> int:
    number = int(value) if _NUMBER.fullmatch(value) else -1
    if number < 0 or (allowed is not None and number not in allowed):
        span = f"{allowed.start} to {allowed.stop - 1}" if allowed else f"a whole number of at most {_DIGITS} digits"
        raise Rejection(reason, f"{header}={_quoted(value)}; allowed: {span}")
    return number


class ChunkReader:
    """Makes chunks from messages as they come over the wire, with the same result or `Rejection` as `parse`.

    A producer's headers are read once, as long as only the offset differs. To read them each time would be a tenth of
    what live streams in chunks of 20 ms cost.
    """

    def __init__(self, options: InputOptions) -> None:
        self._options = options
        # Streams with their headers, twice as many as one core can serve.
        self._without_audio = lru_cache(maxsize=4096)(self._describe)

    def read(self, subject: bytes, block: bytes, payload: bytes, arrived: float | None = None) -> Chunk:
        """Make a chunk from a message. `block`: its header block, empty if it has none. Raises `Rejection`."""
        before, marked, rest = block.partition(_OFFSET_LINE)
        if not marked and (at := block.lower().find(_LOWER_OFFSET_LINE)) >= 0:
            before, marked, rest = block[:at], _OFFSET_LINE, block[at + len(_OFFSET_LINE) :]
        digits, end, after = rest.partition(_LINE)
        digits = digits.strip()
        plain = bool(end) and digits.isdigit() and len(digits) <= _DIGITS if marked else True
        if plain and len(block) <= _REMEMBERED_BYTES:
            known = self._without_audio(subject, before + end + after)
            if known.offset is None:  # else there are two offsets, or one in another spelling
                return _chunk(known, payload, int(digits) if marked else None, arrived, self._options)
        return parse(subject_of(subject), fields(block) if block else None, payload, self._options, arrived)

    def _describe(self, subject: bytes, block: bytes) -> Chunk:
        return _described(subject_of(subject), fields(block) if block else {}, self._options)


def subject_of(subject: bytes) -> str:
    """A subject as text. The server does not check its encoding."""
    return subject.decode("utf-8", "replace")


def parse(
    subject: str,
    headers: Mapping[str, str] | None,
    payload: bytes,
    options: InputOptions,
    arrived: float | None = None,
) -> Chunk:
    """Make a chunk from a message. Raises `Rejection`, which names the header, its value and what is allowed."""
    known = _described(subject, names.canonical(headers), options)
    return _chunk(known, payload, known.offset, arrived, options)


def _described(subject: str, headers: Mapping[str, str], options: InputOptions) -> Chunk:
    """Return a chunk without audio, from subject and headers."""
    stream = stream_of(subject)
    if UNREADABLE in headers:
        raise Rejection("headers", "the header block cannot be read; allowed: NATS/1.0 and lines of Name: value")
    event = _event(headers.get(EVENT))
    chosen = audio_format(headers, options.format)
    session, offset = headers.get(SESSION), headers.get(OFFSET)
    if session is not None and not _PRINTABLE.fullmatch(session):
        raise Rejection("session", f"{SESSION}={_quoted(session)}; allowed: 1 to 128 printable ASCII characters")
    return Chunk(
        stream,
        chosen,
        b"",
        session,
        None if offset is None else _number("offset", OFFSET, offset),
        event,
        language_of(headers),
        tenant_of(headers),
        traceparent_of(headers),
        preferences=preferences_of(headers),
        unknown_language=unknown_language_of(headers),
        unknown_header=names.unknown(headers),
        names_rate=RATE in headers,
    )


def _chunk(known: Chunk, payload: bytes, offset: int | None, arrived: float | None, options: InputOptions) -> Chunk:
    _check_payload(payload, known, options)
    chunk = Chunk(
        known.stream,
        known.format,
        payload,
        known.session,
        offset,
        known.event,
        known.language,
        known.tenant,
        known.traceparent,
        None,
        known.preferences,
        known.unknown_language,
        known.unknown_header,
        known.names_rate,
        arrived=arrived,
    )
    if payload and payload[0] in containers.FIRST_BYTES and payload[:4] in containers.SIGNATURES:
        _unwrap(chunk)
    return chunk


def _unwrap(chunk: Chunk) -> None:
    """Take the format from a WAV header, and the samples after it. Raises `Rejection` for any other file."""
    if (name := containers.known(chunk.pcm)) is None:
        return
    if name != "WAV":
        raise containers.rejection(name)
    head = wav_head(chunk.pcm)
    if head is None or head.format is None:
        raise containers.rejection("a part of a WAV head" if head is None else "WAV of another encoding")
    if head.format.rate not in RATES or head.format.channels not in CHANNEL_COUNTS:
        raise containers.rejection(f"WAV of {head.format.rate} Hz and {head.format.channels} channels")
    end = len(chunk.pcm) if head.size is None else head.start + head.size
    chunk.format, chunk.pcm, chunk.declared = head.format, chunk.pcm[head.start : end], True
    check_frames(chunk.pcm, head.format)


def dropped_chunk(chunk: Chunk) -> DroppedChunk:
    """Return the chunk without its audio, for the account."""
    known = Chunk(chunk.stream, chunk.format, b"", chunk.session, chunk.offset, chunk.event)
    known.names_rate, known.declared = chunk.names_rate, chunk.declared
    return DroppedChunk(known, chunk.frames)


def _event(value: str | None) -> ChunkEvent | None:
    try:
        return None if value is None else ChunkEvent(value)
    except ValueError:
        raise Rejection("event", f"{EVENT}={_quoted(str(value))}; allowed: {', '.join(ChunkEvent)}") from None


def _check_payload(payload: bytes, known: Chunk, options: InputOptions) -> None:
    size = len(payload)
    if size > options.max_chunk_bytes:
        raise Rejection("too_large", f"{size} bytes; AUDIO_MAX_CHUNK_BYTES={options.max_chunk_bytes}")
    if not size and known.event is None:
        raise Rejection("empty", f"no payload and no {EVENT}")
    if size % known.format.frame_bytes and containers.known(payload) is None:
        if (name := containers.name_of(payload, wide=known.format.wide)) is not None:
            raise containers.rejection(name)
        check_frames(payload, known.format)


def _quoted(value: str) -> str:
    """Quote the beginning of a value, which may be as long as a message."""
    return repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}... ({len(value)} characters)"


def _matching(pattern: re.Pattern[str], value: str | None) -> str | None:
    """Return the value of a header that is a hint. A bad value is ignored, as P-3 requires for `traceparent`."""
    return value if value is not None and pattern.fullmatch(value) else None
