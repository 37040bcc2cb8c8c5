"""Several channels become one, and speech in opposite phase stays."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from harness import Speech
from hypothesis import given
from hypothesis import strategies as st

from transcriber.audio.mixing import Mixer

RATE = 16_000
BLOCK = RATE // 50


def mixed(channels: np.ndarray, cuts: list[int] = [], rate: int = RATE) -> tuple[np.ndarray, int]:  # noqa: B006
    """Mix (frames, channels), cut after the frames `cuts`; also how many frames are of one channel."""
    mixer = Mixer(channels.shape[1], rate)
    borders = [0, *sorted(min(cut, len(channels)) for cut in cuts), len(channels)]
    parts = [mixer.push(channels[a:b].astype(np.float32).reshape(-1)) for a, b in pairwise(borders)]
    return np.concatenate([*parts, mixer.flush()]), mixer.unmixed


def noise(frames: int, channels: int = 1, dbfs: float = -30) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((frames, channels)) * 10 ** (dbfs / 20)


@given(st.integers(1, 8), st.integers(0, 3 * BLOCK))
def test_channels_are_averaged_frame_by_frame(channels: int, frames: int) -> None:
    """n interleaved frames become n samples, the mean of each. One channel stays as it is."""
    sound = noise(frames, channels)
    out, unmixed = mixed(sound)
    np.testing.assert_allclose(out, sound.mean(axis=1), atol=1e-6)
    assert unmixed == 0


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("gain", [-1.0, -0.7, -1.4])
def test_opposite_phase_speech_comes_from_the_louder_channel(heldout: Speech, rate: int, gain: float) -> None:
    """The mean would be silent, or 14 dB too quiet."""
    one = heldout.cut(0, 3).samples
    out, unmixed = mixed(np.stack([one, one * gain], axis=1), rate=rate)
    louder = one if abs(gain) <= 1 else one * gain
    assert np.vdot(out - louder, out - louder) < 0.001 * np.vdot(louder, louder)
    assert unmixed > 0.9 * len(one)


@pytest.mark.parametrize("dc", [0.01, 0.1])
def test_opposite_phase_speech_is_found_over_dc_and_hum(heldout: Speech, dc: float) -> None:
    one = heldout.cut(0, 3).samples * 0.1
    under = dc + 0.014 * np.sin(2 * np.pi * 50 * np.arange(len(one)) / RATE)
    out, _ = mixed(np.stack([under + one, under - one], axis=1))
    lost = np.abs(out - under) - np.abs(one)  # the two channels differ by no more than their sign
    assert np.vdot(lost, lost) < 0.05 * np.vdot(one, one)


@pytest.mark.parametrize(
    "sound",
    [
        pytest.param(noise(RATE, 2), id="unrelated"),
        pytest.param(noise(RATE, 8), id="eight unrelated"),
        pytest.param(noise(RATE) * [1, 1], id="equal"),
        pytest.param(noise(RATE) * [1, 0], id="one is silent"),
        pytest.param(noise(RATE) * [1, 0, 0, 0, 0, 0, 0, 0], id="seven are silent"),
        pytest.param(noise(RATE) * [1, -0.5], id="opposite and 6 dB quieter"),
        pytest.param(noise(RATE, dbfs=-90) * [1, -1], id="opposite below the floor"),
        pytest.param(0.01 * np.ones((RATE, 1)) * [1, -1], id="opposite DC"),
    ],
)
def test_other_sound_is_averaged(sound: np.ndarray) -> None:
    """One channel stands alone only where the mean loses 10 dB against unrelated channels."""
    out, unmixed = mixed(sound)
    np.testing.assert_allclose(out, sound.mean(axis=1), atol=1e-6)
    assert unmixed == 0


def test_mixing_returns_to_the_mean_only_when_little_is_lost() -> None:
    """Between 3 and 10 dB of loss the earlier decision stands, in both directions."""
    one, other = noise(10 * BLOCK), np.random.default_rng(8).standard_normal((10 * BLOCK, 1)) * 10 ** (-30 / 20)
    between = np.concatenate([one, -0.75 * one + 0.66 * other], axis=1)  # correlated to -0.75
    opposite, equal, silent = one * [1, -1], one * [1, 1], np.zeros((10 * BLOCK, 2))
    assert mixed(np.concatenate([equal, between]))[1] == 0
    assert mixed(np.concatenate([opposite, between, silent]))[1] == 30 * BLOCK
    assert mixed(np.concatenate([opposite, between, equal, between]))[1] == 20 * BLOCK


def test_chosen_channel_stays_until_another_is_far_louder() -> None:
    """Two channels about as loud do not take turns, which would click."""
    one = noise(4 * BLOCK)
    sound = np.concatenate([one * [1, -0.9], one * [0.9, -1], one * [0.4, -1], one * [0.4, -1]])
    out, _ = mixed(np.concatenate([sound, np.zeros((1, 2))]))
    np.testing.assert_allclose(out[: 8 * BLOCK], sound[: 8 * BLOCK, 0], atol=1e-6)
    assert set(np.round(np.abs(out[8 * BLOCK : -1]) / np.abs(sound[8 * BLOCK :, 1]), 2)) <= {0.3, 0.4, 1.0}


@given(st.lists(st.integers(0, 8000), max_size=12), st.sampled_from([8000, 11_025, 48_000]), st.integers(2, 3))
def test_any_split_gives_the_same_samples(cuts: list[int], rate: int, channels: int) -> None:
    """Blocks follow positions, not chunks, in opposite, equal and unrelated parts, some of them with DC."""
    one = noise(2000)
    opposite, equal = one * [1, -1, 0][:channels], one * [1, 1, 1][:channels]
    sound = np.concatenate([opposite, equal + 0.01, noise(2000, channels), opposite[:777]])
    whole, unmixed = mixed(sound, rate=rate)
    split, again = mixed(sound, cuts, rate)
    assert len(whole) == len(sound)
    np.testing.assert_array_equal(split, whole)
    assert unmixed == again > 0
