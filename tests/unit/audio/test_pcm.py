"""Bytes to samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcriber.audio.pcm import decode
from transcriber.domain.chunks import AudioFormat, Encoding


def mono(encoding: Encoding) -> AudioFormat:
    return AudioFormat(encoding, 16_000, 1)


def test_s16_covers_the_whole_range() -> None:
    """The least and greatest 16-bit values become -1 and just under 1."""
    samples, repaired = decode(np.array([-32768, 0, 32767], "<i2").tobytes(), mono(Encoding.S16LE))
    assert samples.tolist() == [-1.0, 0.0, np.float32(32767 / 32768)]
    assert samples.dtype == np.float32
    assert repaired == 0


@pytest.mark.parametrize(
    ("encoding", "code", "value"),
    [
        # ITU-T G.711, tables 1 and 2, on a 16-bit scale: the extremes, the smallest steps and the sign.
        (Encoding.MULAW, 0x00, -32124),
        (Encoding.MULAW, 0x80, 32124),
        (Encoding.MULAW, 0x7F, 0),
        (Encoding.MULAW, 0xFF, 0),
        (Encoding.MULAW, 0xFE, 8),
        (Encoding.ALAW, 0x2A, -32256),
        (Encoding.ALAW, 0xAA, 32256),
        (Encoding.ALAW, 0xD5, 8),
        (Encoding.ALAW, 0x55, -8),
    ],
)
def test_g711_codes_have_the_values_of_the_standard(encoding: Encoding, code: int, value: int) -> None:
    """Single codes decode to the values that G.711 tabulates."""
    samples, _ = decode(bytes([code]), mono(encoding))
    assert samples[0] * 32768 == value


def test_extreme_floats_are_made_finite_clipped_and_counted() -> None:
    """NaN, infinities and 1e38 neither survive nor spoil their neighbours."""
    values = np.array([0.5, np.nan, np.inf, -np.inf, 1e38, -1.5, -0.5], "<f4")
    samples, repaired = decode(values.tobytes(), mono(Encoding.F32LE))
    assert samples.tolist() == [0.5, 0.0, 1.0, -1.0, 1.0, -1.0, -0.5]
    assert repaired == 5


@given(st.binary(max_size=4096))
def test_any_bytes_decode_to_finite_samples_in_range(data: bytes) -> None:
    """Any bytes give finite samples within [-1, 1]."""
    samples, _ = decode(data[: len(data) // 4 * 4], mono(Encoding.F32LE))
    assert np.all(np.isfinite(samples))
    assert np.all(np.abs(samples) <= 1)


@given(st.sampled_from(list(Encoding)), st.integers(1, 8), st.integers(0, 50))
def test_channels_stay_interleaved(encoding: Encoding, channels: int, frames: int) -> None:
    """n frames of several channels become as many samples of each, in the same order."""
    audio_format = AudioFormat(encoding, 16_000, channels)
    data = np.random.default_rng(frames).integers(0, 60, frames * audio_format.frame_bytes, np.uint8).tobytes()
    samples, _ = decode(data, audio_format)
    np.testing.assert_array_equal(samples, decode(data, mono(encoding))[0])
    assert len(samples) == frames * channels
