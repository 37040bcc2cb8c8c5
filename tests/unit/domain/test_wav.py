"""The heads of WAV files that come through a pipe."""

from __future__ import annotations

import struct

import pytest
from audio_files import encoded, tone
from hypothesis import given
from hypothesis import strategies as st

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.wav import WavHead, wav_head
from transcriber.recording import Recording

STREAMABLE = {
    "PCM_16": Encoding.S16LE,
    "FLOAT": Encoding.F32LE,
    "ULAW": Encoding.MULAW,
    "ALAW": Encoding.ALAW,
}


def chunk(kind, body):
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def wav(*chunks):
    return b"RIFF" + struct.pack("<I", 4 + sum(map(len, chunks))) + b"WAVE" + b"".join(chunks)


FMT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 2, 44_100, 176_400, 4, 16))
STEREO = AudioFormat(Encoding.S16LE, 44_100, 2)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("subtype", "encoding"), STREAMABLE.items())
def test_a_wav_head_tells_format_and_place_of_the_samples(subtype, encoding, channels):
    """libsndfile writes each encoding, extensible heads included. The samples can be sent as they stand."""
    data = encoded(tone(100, channels), 44_100, subtype)
    head = wav_head(data)
    assert head is not None
    assert head.format == AudioFormat(encoding, 44_100, channels)
    assert head.size == 100 * head.format.frame_bytes
    assert len(data) - head.start >= head.size
    if subtype == "PCM_16":
        assert data[head.start :][: head.size] == b"".join(Recording(data).pcm(100))


@given(st.data())
def test_a_wav_head_is_read_from_any_beginning_that_holds_it(data):
    """Too few bytes ask for more and never give a wrong answer. More bytes do not change the answer."""
    extra = data.draw(st.lists(st.binary(max_size=30), max_size=3))
    whole = wav(*(chunk(b"LIST", body) for body in extra), FMT, chunk(b"data", b"\x01" * 400))
    start = len(whole) - 400
    answers = [wav_head(whole[:n]) for n in range(len(whole) + 1)]
    assert answers == [None] * start + [WavHead(STEREO, start, 400)] * 401


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0x80000000 - 176_400, 0xFFFFFFFF])
def test_wav_size_from_a_running_recorder_is_not_believed(size):
    """arecord, sox and ffmpeg write such sizes into a pipe. The samples go on until the end of the input."""
    data = wav(FMT) + b"data" + struct.pack("<I", size)
    assert wav_head(data) == WavHead(STEREO, len(data), None)


@pytest.mark.parametrize(
    "data",
    [
        encoded(tone(100), subtype="PCM_24"),
        encoded(tone(100), subtype="PCM_U8"),
        wav(chunk(b"data", b"\0" * 4)),  # no fmt
        wav(chunk(b"fmt ", b"\1\0"), chunk(b"data", b"\0" * 4)),
        wav(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 2, 44_100, 176_400, 3, 16)), chunk(b"data", b"\0" * 4)),
        b"RIFF\x10\0\0\0AVI LIST",
    ],
    ids=["24 bits", "8 bits", "no format", "short format", "frame of another size", "no WAV"],
)
def test_wav_head_of_another_encoding_has_no_format(data):
    """The caller then reads the whole file, and libsndfile decodes or refuses it."""
    head = wav_head(data)
    assert head is not None
    assert head.format is None


@given(st.binary(max_size=200))
def test_junk_after_riff_is_never_an_error_in_the_program(junk):
    """Random bytes give some answer or ask for more."""
    wav_head(b"RIFF" + junk)
    wav_head(wav(FMT, junk))
