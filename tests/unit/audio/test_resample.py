"""To 16 kHz without losing or inventing a sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transcriber.audio.resample import Resampler

RATES = (8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000)


def run(rate: int, samples: np.ndarray, cuts: list[int]) -> np.ndarray:
    resampler = Resampler(rate)
    pieces = [resampler.push(piece) for piece in np.split(samples, sorted(cuts))]
    pieces.append(resampler.flush(round(len(samples) * 16_000 / rate)))
    return np.concatenate(pieces)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(RATES), st.integers(0, 30_000), st.lists(st.integers(0, 30_000), max_size=12))
def test_output_is_exact_in_length_and_the_same_for_any_split(rate: int, length: int, cuts: list[int]) -> None:
    """n frames at rate r give round(n * 16000 / r) samples, the same ones however the frames arrive."""
    samples = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    whole = run(rate, samples, [])
    assert len(whole) == round(length * 16_000 / rate)
    np.testing.assert_array_equal(whole, run(rate, samples, [min(c, length) for c in cuts]))


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_keeps_its_pitch_level_and_place(rate: int) -> None:
    """A 1 kHz tone comes out as the 1 kHz tone of the same phase: nothing is shifted in time."""
    seconds = np.arange(rate) / rate
    out = run(rate, np.sin(2 * np.pi * 1000 * seconds).astype(np.float32), [rate // 3])
    wanted = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(out[2000:-2000], wanted[2000:-2000], atol=2e-3)


def test_a_flush_pads_with_silence_up_to_what_was_owed() -> None:
    """A total beyond what was pushed is filled with zeros, so that no sample is unaccounted for."""
    resampler = Resampler(16_000)
    resampler.push(np.ones(10, np.float32))
    assert resampler.flush(13).tolist() == [0.0, 0.0, 0.0]
