"""Audio files in memory."""

from __future__ import annotations

import io

import numpy as np
import soundfile


def tone(frames, channels=1, rate=48_000):
    """A quiet sine in each channel, each of another pitch: float32 of shape (frames, channels)."""
    time = np.arange(frames, dtype=np.float32)[:, None] / rate
    return (0.25 * np.sin(2 * np.pi * 300 * (1 + np.arange(channels)) * time)).astype(np.float32)


def encoded(samples, rate=48_000, subtype="PCM_16", container="WAV"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=container)
    return file.getvalue()
