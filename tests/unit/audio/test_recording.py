"""Audio files in, blocks of samples out; and the heads of WAV files that come through a pipe."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.errors import RecordingError
from transcriber.domain.wav import WavHead, wav_head
from transcriber.recording import Recording, is_recording, read_16k

STREAMABLE = {
    "PCM_16": Encoding.S16LE,
    "FLOAT": Encoding.F32LE,
    "ULAW": Encoding.MULAW,
    "ALAW": Encoding.ALAW,
}


def tone(frames, channels=1, rate=48_000):
    """A quiet sine in each channel, each of another pitch: float32 of shape (frames, channels)."""
    time = np.arange(frames, dtype=np.float32)[:, None] / rate
    return (0.25 * np.sin(2 * np.pi * 300 * (1 + np.arange(channels)) * time)).astype(np.float32)


def encoded(samples, rate=48_000, subtype="PCM_16", container="WAV"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=container)
    return file.getvalue()


def chunk(kind, body):
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def wav(*chunks):
    return b"RIFF" + struct.pack("<I", 4 + sum(map(len, chunks))) + b"WAVE" + b"".join(chunks)


FMT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 2, 44_100, 176_400, 4, 16))
STEREO = AudioFormat(Encoding.S16LE, 44_100, 2)


@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS")])
@pytest.mark.parametrize("where", ["file", "bytes"])
def test_recordings_of_every_kind_are_read_in_blocks(tmp_path, container, subtype, where):
    """WAV, FLAC and OGG, from a path or from memory: rate, channels, length, and blocks that join to the samples."""
    samples = tone(5000, channels=2, rate=44_100)
    data = encoded(samples, 44_100, subtype, container)
    path = tmp_path / "a"
    path.write_bytes(data)
    assert is_recording(data)
    recording = Recording(path if where == "file" else data)
    assert (recording.rate, recording.channels, recording.frames) == (44_100, 2, 5000)
    assert recording.seconds == 5000 / 44_100
    blocks = list(recording.blocks(1500))
    assert [block.shape for block in blocks] == [(1500, 2)] * 3 + [(500, 2)]
    assert np.abs(np.concatenate(blocks) - samples).max() < (0.05 if container == "OGG" else 1e-4)


def test_pcm_is_what_a_16_bit_file_holds():
    """Through float32 and back to 16 bits no sample changes, the extremes included."""
    samples = np.array([[-32768, 32767], [0, 1], [-1, 12345]], np.int16)
    recording = Recording(encoded(samples))
    assert b"".join(recording.pcm(2)) == samples.astype("<i2").tobytes()


def test_pcm_of_a_file_louder_than_full_scale_is_clipped():
    """Floats beyond 1 become the loudest 16-bit sample and never wrap around to the other sign."""
    loud = Recording(encoded(np.array([[3.0], [-3.0]], np.float32), subtype="FLOAT"))
    assert list(loud.pcm(10)) == [struct.pack("<hh", 32767, -32768)]


def test_a_recording_is_brought_to_16k_mono(tmp_path):
    """What start-up measures with: any rate and channels become the samples Whisper hears."""
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(tone(48_000, channels=2)))
    samples = read_16k(path)
    assert samples.dtype == np.float32
    assert samples.shape == (16_000,)
    expected = tone(16_000, 2, 16_000).mean(axis=1)
    assert np.abs(samples - expected)[500:-500].max() < 0.01


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("gone.wav", None, "no such file or directory"),
        ("notes.txt", b"words, not sounds\n" * 50, "no WAV, FLAC or OGG that can be decoded (format not recognised)"),
        ("renamed.wav", b"words, not sounds\n" * 50, "no WAV, FLAC or OGG that can be decoded (format not recognised)"),
        ("empty.flac", b"", "no WAV, FLAC or OGG that can be decoded (format not recognised)"),
        ("pcm.raw", b"\0" * 1000, "raw PCM can only be read from standard input"),
    ],
)
def test_unreadable_file_is_named_with_its_reason(tmp_path, name, content, reason):
    """The sentence has the path once and says what is wrong with it."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        Recording(path)
    assert str(caught.value) == f"{path}: {reason}"


def test_a_directory_is_no_recording(tmp_path):
    """Said as such, not as a format that is not recognised."""
    with pytest.raises(RecordingError, match=r"is a directory$"):
        Recording(tmp_path)


def test_damage_in_the_middle_is_found_while_reading():
    """A FLAC file whose frames are noise opens, and fails when it is decoded."""
    data = bytearray(encoded(tone(96_000), container="FLAC"))
    middle = len(data) // 2
    data[middle : middle + 4000] = b"\xff" * 4000
    recording = Recording(bytes(data))
    with pytest.raises(RecordingError, match=r"^recording: damaged"):
        list(recording.blocks(4800))


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("subtype", "encoding"), STREAMABLE.items())
def test_a_wav_head_tells_format_and_place_of_the_samples(subtype, encoding, channels):
    """Of what libsndfile writes in each encoding, extensible heads included: the samples can go out as they stand."""
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
    """Too few bytes ask for more and never for a wrong answer; with more of them the answer stays the same."""
    extra = data.draw(st.lists(st.binary(max_size=30), max_size=3))
    whole = wav(*(chunk(b"LIST", body) for body in extra), FMT, chunk(b"data", b"\x01" * 400))
    start = len(whole) - 400
    answers = [wav_head(whole[:n]) for n in range(len(whole) + 1)]
    assert answers == [None] * start + [WavHead(STEREO, start, 400)] * 401


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0x80000000 - 176_400, 0xFFFFFFFF])
def test_wav_size_from_a_running_recorder_is_not_believed(size):
    """arecord, sox and ffmpeg write such sizes into a pipe: the samples go on until the end of the input."""
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
    """The caller then reads the whole file and lets libsndfile decode it, or refuse it."""
    head = wav_head(data)
    assert head is not None
    assert head.format is None


@given(st.binary(max_size=200))
def test_junk_after_riff_is_never_an_error_in_the_program(junk):
    """Random bytes give some answer or ask for more."""
    wav_head(b"RIFF" + junk)
    wav_head(wav(FMT, junk))


def test_raw_pcm_is_no_recording():
    """Silence, speech and text begin otherwise than a file does."""
    assert not any(map(is_recording, [b"", b"RIF", bytes(100), Path(__file__).read_bytes()]))
