"""The log-mel spectrogram against the formula in double precision and a published model's filters."""

from __future__ import annotations

import numpy as np
import pytest

from transcriber.models.store import bundled_model_path
from transcriber.models.to_ggml import mel_filters as published_filters
from transcriber.worker.engines.features import log_mel, mel_filters


def expected(samples: np.ndarray, frames: int) -> np.ndarray:
    """OpenAI's formula, a frame at a time."""
    padded = np.concatenate([samples, np.zeros(frames * 160 + 400 - len(samples))])
    mirrored = np.concatenate([padded[200:0:-1], padded])
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    spectra = [np.fft.rfft(mirrored[i * 160 : i * 160 + 400] * hann) for i in range(frames)]
    power = mel_filters(80).astype(float) @ (np.abs(spectra) ** 2).T
    logs = np.log10(np.maximum(power, 1e-10))
    return (np.maximum(logs, logs.max() - 8.0) + 4.0) / 4.0


def test_filters_are_those_of_the_published_models() -> None:
    """They are derived here and stored there, and agree to rounding."""
    stored = np.frombuffer(published_filters(bundled_model_path())[8:], "<f4").reshape(80, 201)
    assert np.abs(mel_filters(80) - stored).max() < 1e-8


@pytest.mark.parametrize(("length", "frames"), [(16_000, 100), (16_000, 300), (12_345, 200), (201, 10), (1, 4)])
def test_features_are_those_of_the_formula(length: int, frames: int) -> None:
    """They agree within single precision, whatever part of the frames has samples."""
    samples = np.random.default_rng(length).normal(0, 0.1, length).astype(np.float32)
    features = log_mel(samples, 80, frames)
    assert features.shape == (1, 80, frames)
    assert features.dtype == np.float32
    assert np.abs(features[0] - expected(samples, frames)).max() < 2e-4


@pytest.mark.parametrize("length", [0, 160_000])
def test_silence_and_nothing_are_even(length: int) -> None:
    """The floor is everywhere, and no value is infinite."""
    features = log_mel(np.zeros(length, np.float32), 128, 400)
    assert np.isfinite(features).all()
    assert np.ptp(features) < 1e-6  # a logarithm's last bit differs between a processor's instruction sets


def test_samples_after_the_last_frame_change_nothing() -> None:
    """A window is never longer than its context. If it were, the rest would not be heard."""
    samples = np.random.default_rng(1).normal(0, 0.1, 3200).astype(np.float32)
    assert np.array_equal(log_mel(samples, 80, 10), log_mel(samples[:1600], 80, 10))
