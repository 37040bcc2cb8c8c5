"""Any subject and any headers become a chunk or a rejection, and nothing else."""

from __future__ import annotations

import pytest
from headers import NAMES
from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client

from transcriber.domain.chunks import AudioFormat, Chunk, ChunkEvent, Encoding
from transcriber.domain.errors import Rejection
from transcriber.protocol import headers as names
from transcriber.protocol import incoming

OPTIONS = incoming.InputOptions(max_chunk_bytes=1000)
PLAUSIBLE = [*Encoding, *ChunkEvent, "16000", "48000", "1", "2", "0", "en", "auto", "-1", "9" * 16, "", "run", "１２"]  # noqa: RUF001
WAV = b"RIFF\x2e\0\0\0WAVEfmt \x10\0\0\0\1\0\2\0\x80\x3e\0\0\0\xfa\0\0\4\0\x10\0data\x08\0\0\0abcdefgh"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ANYTHING = st.text() | st.sampled_from(PLAUSIBLE)
HEADERS = st.none() | st.dictionaries(st.sampled_from(NAMES) | st.text(), ANYTHING)


def outcome(subject: str, headers: dict[str, str] | None, payload: bytes) -> Chunk | Rejection:
    try:
        return incoming.parse(subject, headers, payload, OPTIONS)
    except Rejection as rejection:
        return rejection


@given(subject=st.text() | st.text().map("audio.{}".format), headers=HEADERS, payload=st.binary(max_size=1200))
@example(subject="audio.s1", headers={incoming.UNREADABLE: ""}, payload=b"")
@example(subject="audio.s1", headers={incoming.SESSION: "\ud800"}, payload=b"ab")
def test_any_message_is_a_chunk_or_a_rejection(subject: str, headers: dict[str, str] | None, payload: bytes) -> None:
    """No subject, header or payload raises anything but `Rejection`, and every chunk keeps the protocol's limits."""
    chunk = outcome(subject, headers, payload)
    if isinstance(chunk, Rejection):
        assert chunk.reason.isidentifier()
        assert 0 < len(chunk.detail) < 3000
        return
    assert subject == chunk.stream or subject.endswith(
        f".{chunk.stream}"
    )  # what stands before it is the subscription's business
    assert incoming.is_stream(chunk.stream)
    assert chunk.pcm == payload or chunk.declared
    assert len(payload) <= OPTIONS.max_chunk_bytes
    assert len(chunk.pcm) == chunk.frames * chunk.format.frame_bytes
    assert chunk.frames or chunk.event is not None
    assert 8000 <= chunk.format.rate <= 192_000
    assert 1 <= chunk.format.channels <= 8
    assert chunk.offset is None or 0 <= chunk.offset < 10**15
    for name in (chunk.session, chunk.tenant):
        assert name is None or (1 <= len(name) <= 128 and name.isascii() and name.isprintable())


@given(headers=st.dictionaries(st.sampled_from(NAMES), ANYTHING))
def test_a_chunk_that_is_given_up_keeps_its_bounds(headers: dict[str, str]) -> None:
    """Session, offset, length and event stay. The audio goes."""
    chunk = outcome("audio.s1", headers, bytes(64))
    if isinstance(chunk, Rejection):
        return
    skipped = incoming.dropped_chunk(chunk)
    assert skipped.frames == chunk.frames
    assert skipped.chunk.pcm == b""
    assert (skipped.chunk.session, skipped.chunk.offset, skipped.chunk.event) == (
        chunk.session,
        chunk.offset,
        chunk.event,
    )


def test_chunk_without_headers_is_what_the_settings_say() -> None:
    """The protocol's defaults: 48 kHz, one channel, pcm_s16le, contiguous, the stream's current session."""
    for headers in (None, {}, {"Unknown": "x"}):
        chunk = incoming.parse("audio.radio-1", headers, b"\0\0" * 5, incoming.InputOptions())
        assert chunk.format == AudioFormat(Encoding.S16LE, 48_000, 1)
        assert (chunk.stream, chunk.frames, chunk.session, chunk.offset) == ("radio-1", 5, None, None)


def test_every_header_is_read() -> None:
    """Each header ends up in its field."""
    headers = {
        incoming.ENCODING: "pcm_alaw",
        incoming.RATE: "8000",
        incoming.CHANNELS: "2",
        incoming.SESSION: "run 1",
        incoming.OFFSET: "160",
        incoming.LANGUAGE: "de",
        incoming.TENANT: "acme",
        incoming.EVENT: "end",
        incoming.TRACEPARENT: TRACE,
    }
    chunk = incoming.parse("audio.s1", headers, bytes(8), OPTIONS)
    assert chunk.format == AudioFormat(Encoding.ALAW, 8000, 2)
    assert (chunk.session, chunk.offset, chunk.event) == ("run 1", 160, ChunkEvent.END)
    assert (chunk.language, chunk.tenant, chunk.traceparent) == ("de", "acme", TRACE)


@pytest.mark.parametrize(
    "value", [TRACE[:-1], TRACE.upper(), "ff" + TRACE[2:], TRACE.replace("b7ad6b7169203331", "0" * 16), "", " " + TRACE]
)
def test_a_bad_traceparent_is_ignored(value: str) -> None:
    """A trace context that W3C forbids is no reason to lose audio."""
    assert incoming.parse("audio.s1", {incoming.TRACEPARENT: value}, b"\0\0", OPTIONS).traceparent is None


@pytest.mark.parametrize(
    ("value", "code"), [("de-DE", "de"), ("DEU", "de"), ("yue", "yue"), ("jv", "jw"), ("auto", "auto")]
)
def test_a_language_is_read_in_any_spelling(value: str, code: str) -> None:
    """The result is Whisper's code."""
    chunk = incoming.parse("audio.s1", {incoming.LANGUAGE: value}, b"\0\0", OPTIONS)
    assert (chunk.language, chunk.unknown_language) == (code, None)


@pytest.mark.parametrize(("value", "shown"), [("klingon", "klingon"), ("x" * 1000, "x" * 160), ("", None)])
def test_an_unknown_language_rejects_nothing_and_is_told(value: str, shown: str | None) -> None:
    """It is a hint: the chunk goes on without it and keeps its value for the log."""
    chunk = incoming.parse("audio.s1", {incoming.LANGUAGE: value}, b"\0\0", OPTIONS)
    assert (chunk.language, chunk.unknown_language) == (None, shown)


@pytest.mark.parametrize("name", ["", "a.b.c", "a b", "*", ">", "straße", "x" * 65, "a\n", "a/b"])
def test_a_name_outside_the_pattern_is_no_stream(name: str) -> None:
    """Only [A-Za-z0-9_-]{1,64} names a stream, and the rejection says so."""
    assert not incoming.is_stream(name)
    with pytest.raises(Rejection, match=r"\[A-Za-z0-9_-\]\{1,64\}") as error:
        incoming.stream_of(f"audio.{name}")
    assert error.value.reason == "stream"


def test_the_longest_name_is_a_stream() -> None:
    """64 characters are allowed."""
    assert incoming.stream_of("audio." + "x" * 64) == "x" * 64


def test_a_rejection_repeats_only_the_beginning_of_a_long_value() -> None:
    """A header may be as long as a message. The event about it must still fit into one."""
    with pytest.raises(Rejection) as error:
        incoming.parse("audio.s1", {incoming.ENCODING: "\0" * 1_000_000}, b"\0\0", OPTIONS)
    assert "1000000 characters" in error.value.detail
    assert len(error.value.detail) < 1000


def test_rejection_names_its_session_only_if_the_name_is_valid() -> None:
    """`session_of` never hands on a name that P-3 forbids."""
    assert incoming.session_of({incoming.SESSION: "run"}) == "run"
    for headers in (None, {}, {incoming.SESSION: "a\x00"}, {incoming.SESSION: ""}, {incoming.SESSION: "ä"}):
        assert incoming.session_of(headers) is None


@given(
    st.lists(
        st.binary(max_size=12)
        | st.sampled_from([b"Audio-Offset: 7", b"A:b", b" A : b c ", b"A\t: b", b"A b: c", b"colon", b"A:b:c", b":x"]),
        max_size=5,
    )
)
def test_header_blocks_are_read_as_nats_py_does(lines: list[bytes]) -> None:
    """A block may hold any bytes between its first line and its end."""
    block = b"\r\n".join([b"NATS/1.0", *lines, b"", b""])
    theirs = Client._parse_header_lines(block.removeprefix(b"NATS/1.0\r\n"))
    assert incoming.fields(block) == names.canonical(theirs)


@pytest.mark.parametrize("block", [b"", b"\xff\0", b"HTTP/1.1\r\n\r\n", b"NATS/1.0 503\r\n\r\n", b"NATS/1.0"])
def test_malformed_header_block_is_unreadable(block: bytes) -> None:
    """So are the server's own statuses, which never come with audio."""
    assert incoming.fields(block) == {incoming.UNREADABLE: ""}


@given(
    subject=st.binary(max_size=9) | st.sampled_from([b"audio.s1", b"audio.\xff"]),
    lines=st.lists(
        st.binary(max_size=12)
        | st.sampled_from(
            [
                b"Audio-Offset: 7",
                b"Audio-Offset:007 ",
                b" Audio-Offset: 8",
                b"Audio-Offset: " + b"9" * 16,
                b"Audio-Offset: -1",
                b"audio-offset: 9",
                b"AUDIO-SESSION: loud",
                b"Audio-Ofset: 4",
                b"Audio-Offset:",
                b"Audio-Session: run",
                b"Audio-Event: end",
                b"Audio-Event: no",
                b"Audio-Channels: 2",
                b"Audio-Language: de-DE",
                b"Audio-Language: no such",
                b"traceparent: " + TRACE.encode(),
                b"X: " + b"x" * 1100,
            ]
        ),
        max_size=5,
    ),
    whole=st.booleans(),
    payload=st.sampled_from([b"", b"ab", b"abc", bytes(2000), b"OggS\0\2ab", WAV, WAV + b"a", WAV[:20]]),
)
def test_remembered_headers_are_read_as_new_ones_are(
    subject: bytes, lines: list[bytes], whole: bool, payload: bytes
) -> None:
    """The cache makes no difference, neither the first time nor the second."""
    block = b"\r\n".join([b"NATS/1.0", *lines, *([b"", b""] if whole else [])]) if lines else b""
    expected = outcome(incoming.subject_of(subject), incoming.fields(block) if block else None, payload)
    reader = incoming.ChunkReader(OPTIONS)
    for _ in range(2):
        try:
            chunk: Chunk | Rejection = reader.read(subject, block, payload)
        except Rejection as rejection:
            chunk = rejection
        assert str(chunk) == str(expected)
