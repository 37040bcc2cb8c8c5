"""A hundred signals of 1 to 10 s without speech. They are made differently from those in training (windows.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

SAMPLE_RATE = 16000
SIGNALS = 100


def white(n: int, g: np.random.Generator) -> Samples:
    return g.standard_normal(n).astype(np.float32)


def pink(n: int, g: np.random.Generator) -> Samples:
    """Noise whose power falls by 3 dB an octave."""
    spectrum = np.fft.rfft(g.standard_normal(n))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    x = np.fft.irfft(spectrum, n)
    even: Samples = (x / x.std()).astype(np.float32)
    return even


def tone(n: int, g: np.random.Generator) -> Samples:
    return np.sin(2 * np.pi * g.uniform(50, 4000) * np.arange(n) / SAMPLE_RATE).astype(np.float32)


def chord(n: int, g: np.random.Generator) -> Samples:
    """A triad with overtones that swells and fades."""
    t = np.arange(n) / SAMPLE_RATE
    root = g.uniform(80, 500)
    x = sum(np.sin(2 * np.pi * root * step * k * t) / k for step in (1, 5 / 4, 3 / 2) for k in (1, 2, 3))
    return (x * (0.6 + 0.4 * np.sin(2 * np.pi * g.uniform(0.1, 2) * t))).astype(np.float32)


def melody(n: int, g: np.random.Generator) -> Samples:
    """Plucked notes of a pentatonic scale over a beat of noise."""
    x = np.zeros(n, np.float32)
    beat = int(g.uniform(0.15, 0.5) * SAMPLE_RATE)
    t = np.arange(beat) / SAMPLE_RATE
    for first in range(0, n - beat, beat):
        pitch = 110 * 2 ** (g.choice([0, 2, 4, 7, 9, 12, 14, 16]) / 12)
        note = sum(np.sin(2 * np.pi * pitch * k * t) / k**2 for k in range(1, 6)) * np.exp(-4 * t)
        x[first : first + beat] += note + 0.3 * g.standard_normal(beat) * np.exp(-40 * t)
    return x


def signals() -> Iterator[tuple[str, Samples]]:
    """Five kinds, ten durations, loud and faint; a tenth of them is silence."""
    g = np.random.default_rng(0)
    for kind in (white, pink, tone, chord, melody):
        for seconds in range(1, 11):
            for level in (-10, -35):  # dB below full scale
                x = kind(seconds * SAMPLE_RATE, g)
                x = x / np.abs(x).max() * 10 ** (level / 20)
                silence = seconds % 5 == 0 and level < -30
                name = "silence" if silence else kind.__name__
                yield f"{name}, {seconds} s, {level} dB", np.zeros_like(x) if silence else x.astype(np.float32)
