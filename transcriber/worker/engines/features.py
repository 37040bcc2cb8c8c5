"""The log-mel spectrogram that Whisper takes, for an engine that does not compute its own. Pure.

Source: `log_mel_spectrogram` in OpenAI's whisper/audio.py (MIT), which pads to 30 s. Here the caller chooses the
length.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from transcriber.domain.timeline import SAMPLE_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAMES_A_POSITION = 2  # mel frames; the encoder's second convolution has stride 2

_FFT = 400  # samples of 16 kHz, 25 ms
_HOP = 160  # samples, 10 ms
_EDGE = _FFT // 2  # samples mirrored before the first one, as frames are centred on their times
_LEAST_POWER = 1e-10  # the floor: digital silence counts as this
_RANGE = 8.0  # decades below the loudest; anything fainter counts as this far below
# Slaney's mel scale, as in Whisper's filters, which librosa made: linear up to 1 kHz, logarithmic above.
_HZ_A_MEL = 200.0 / 3.0
_BREAK_HZ, _BREAK_MEL = 1000.0, 15.0
_LOG_STEP = np.log(6.4) / 27.0
_HANN = np.hanning(_FFT + 1)[:-1].astype(np.float32)  # periodic, as in torch


def log_mel(samples: NDArray[np.float32], bands: int, frames: int) -> NDArray[np.float32]:
    """Return the features of float32 mono 16 kHz in [-1, 1], shape (1, bands, frames), as if zeros followed.

    Each frame is 10 ms. Samples after the last frame are left out.
    """
    samples = samples[: frames * _HOP]
    heard = min(frames, (len(samples) + _EDGE) // _HOP + 1)  # frames with at least one sample
    padded = np.zeros((heard - 1) * _HOP + _FFT, np.float32)
    edge = samples[_EDGE:0:-1]
    padded[_EDGE - len(edge) : _EDGE] = edge
    padded[_EDGE : _EDGE + len(samples)] = samples[: len(padded) - _EDGE]
    # Overlapping frames as a view. numpy's own function for it leaks an object at each call.
    step = padded.itemsize
    windows = np.ndarray((heard, _FFT), np.float32, padded, strides=(_HOP * step, step))
    spectrum = np.fft.rfft(windows * _HANN, axis=1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    features = np.full((bands, frames), np.log10(_LEAST_POWER), np.float32)
    np.log10(np.maximum(mel_filters(bands) @ power.T, _LEAST_POWER), out=features[:, :heard])
    np.maximum(features, features.max() - _RANGE, out=features)
    features += 4.0
    features /= 4.0
    return features[np.newaxis]


@lru_cache(maxsize=2)
def mel_filters(bands: int) -> NDArray[np.float32]:
    """Return triangles of equal area on Slaney's mel scale, shape (bands, 201): librosa's `filters.mel`."""
    bins = np.linspace(0.0, SAMPLE_RATE / 2, _FFT // 2 + 1)
    corners = _hertz(np.linspace(0.0, _mel(SAMPLE_RATE / 2), bands + 2))
    rising = (bins - corners[:-2, np.newaxis]) / np.diff(corners)[:-1, np.newaxis]
    falling = (corners[2:, np.newaxis] - bins) / np.diff(corners)[1:, np.newaxis]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    triangles *= (2.0 / (corners[2:] - corners[:-2]))[:, np.newaxis]
    return triangles.astype(np.float32)


def _mel(hertz: float) -> float:
    return float(_BREAK_MEL + np.log(hertz / _BREAK_HZ) / _LOG_STEP)


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _BREAK_HZ * np.exp(_LOG_STEP * (mels - _BREAK_MEL))
    return np.where(mels < _BREAK_MEL, mels * _HZ_A_MEL, above)
