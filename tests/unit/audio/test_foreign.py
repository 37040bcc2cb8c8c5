"""Streams that send a file in place of PCM are refused, except for WAV files, whose heads are understood."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from turns import checkpoint, chunk, ended, kinds, make, noise

from transcriber.audio.sessions import Sessions
from transcriber.domain.chunks import AudioFormat, Chunk, ChunkEvent, Encoding
from transcriber.domain.errors import Rejection
from transcriber.domain.events import Started
from transcriber.domain.timeline import Origin
from transcriber.protocol import incoming

OPTIONS = incoming.InputOptions()
WEBM = bytes.fromhex("1a45dfa39f4286810142f7810142f2810442f381084282847765626d42878104")
MP3 = io.BytesIO()
soundfile.write(MP3, np.random.default_rng(0).normal(0, 0.1, 48_000), 48_000, format="MP3")


def wav(subtype: str = "PCM_16", channels: int = 2, frames: int = 1600) -> bytes:
    """A file of 16 kHz."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros((frames, channels)), 16_000, format="WAV", subtype=subtype)
    return file.getvalue()


def feed(sessions: Sessions, payload: bytes, now: float = 0.0, **headers: str) -> str | None:
    """Feed as a pipeline does. Returns the reason of a rejection."""
    named = {f"Audio-{name.title()}": value for name, value in headers.items()}
    try:
        sessions.receive(incoming.parse("audio.s", named, payload, OPTIONS), now)
    except Rejection as rejection:
        sessions.reject("s", headers.get("session"), rejection, None, now)
        return rejection.detail
    return None


@pytest.mark.parametrize(
    ("name", "data"), [("WebM", WEBM), ("MP3", MP3.getvalue()), ("JSON", b'{"audio": "AAAA"}' * 9)]
)
def test_a_file_is_refused_to_its_end(name: str, data: bytes) -> None:
    """The rest of a file may look like anything, and is no PCM. After a pause or `end`, PCM is accepted."""
    for pause, event in ((5.0, False), (0.0, True)):
        sessions = make(stream_timeout=5)
        for n in range(20):
            detail = feed(sessions, data if not n else noise(n), n / 10, session="a")
            assert detail is not None
            assert name in detail
        assert sessions.active == 0
        if event:
            assert feed(sessions, b"", 2, session="a", event="end") is None
        assert feed(sessions, noise(1), 2 + pause, session="a") is None
        assert sessions.active == 1


def test_a_file_stops_no_other_stream_and_no_other_session() -> None:
    """A file in the middle of a session does not end that session."""
    sessions = make()
    assert feed(sessions, noise(1), session="a") is None
    assert "WebM" in (feed(sessions, WEBM, 1, session="a") or "")
    assert sessions.active == 1
    assert feed(sessions, noise(1), 1, session="b") is None
    assert kinds(sessions.receive(chunk(stream="t"), 1)) == [("Started", "generated-1")]


@pytest.mark.parametrize("first", [44, 44 + 1280])
@pytest.mark.parametrize("restart", [False, True])
def test_the_head_of_a_wav_file_says_what_follows(first: int, restart: bool) -> None:
    """The head comes alone or with audio, in a stream without headers. Another daemon knows it too."""
    data = wav()
    sessions = make()
    outputs = sessions.receive(incoming.parse("audio.s", {}, data[:first], OPTIONS), 0)
    started = next(o for o in outputs if isinstance(o, Started))
    assert started.declared
    for at in range(first, len(data), 640):
        assert feed(sessions, data[at : at + 640], at / 16_000) is None
    assert sessions.format(started.origin) == AudioFormat(Encoding.S16LE, 16_000, 2)
    if restart:
        assert feed(sessions, noise(1)[:6400], 100, offset="0") is None
        assert feed(sessions, noise(1)[6400:12_800], 100, offset="1600") is None
        assert ended(sessions.end_all()).account.received == 3200
    else:
        assert ended(sessions.end_all()).account.received == 1600


def test_a_wav_head_in_every_chunk_is_left_out() -> None:
    """Some browsers' recorders send each chunk as a file. What follows the samples is left out too."""
    sessions = make()
    for n in range(10):
        assert feed(sessions, wav("FLOAT", 1) + b"LIST\4\0\0\0abcd", n / 10, session="a") is None
    assert sessions.format(Origin("s", "a")) == AudioFormat(Encoding.F32LE, 16_000, 1)
    assert ended(sessions.end_all()).account.received == 16_000


@pytest.mark.parametrize(
    ("data", "says"), [(wav("PCM_24"), "WAV of another encoding"), (wav()[:30], "a part of a WAV head")]
)
def test_wav_file_of_another_encoding_is_refused(data: bytes, says: str) -> None:
    """The reason says what it is. The rest of the file is refused as well."""
    sessions = make()
    assert says in (feed(sessions, data) or "")
    assert says in (feed(sessions, noise(1)) or "")


def test_partial_frame_of_the_declared_format_is_refused() -> None:
    """The head declared two channels. Three samples are no whole number of frames."""
    sessions = make()
    feed(sessions, wav())
    assert "4-byte sample frames" in (feed(sessions, bytes(6)) or "")


def test_a_declared_format_survives_another_daemon() -> None:
    """The checkpoint has it."""
    stereo = AudioFormat(Encoding.S16LE, 16_000, 2)
    sessions = make()
    sessions.resume(replace(checkpoint(), declared=True, format=stereo), 100)
    nameless = Chunk("s", AudioFormat(Encoding.S16LE, 48_000, 1), bytes(6400), "a", names_rate=False)
    sessions.receive(nameless, 100)
    assert ended(sessions.receive(chunk("a", None, b"", ChunkEvent.END), 100)).account.received == 17_600
