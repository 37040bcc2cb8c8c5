"""Audio files in, blocks of samples out."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from audio_files import encoded, tone

from transcriber.domain.errors import RecordingError
from transcriber.recording import Recording, is_recording, read_16k


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
    """Start-up measures with these samples. Any rate and channels become the samples Whisper hears."""
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
    """The error has the path once and says what is wrong with it."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        Recording(path)
    assert str(caught.value) == f"{path}: {reason}"


def test_a_directory_is_no_recording(tmp_path):
    """The error says so, and does not speak of an unknown format."""
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


def test_raw_pcm_is_no_recording():
    """Silence, speech and text do not begin as a file does."""
    assert not any(map(is_recording, [b"", b"RIF", bytes(100), Path(__file__).read_bytes()]))
