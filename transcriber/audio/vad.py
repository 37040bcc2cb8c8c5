"""Decides which frames of audio are speech."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import webrtcvad

from transcriber.domain.timeline import SAMPLE_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAME = 480  # samples: 30 ms, the longest frame that webrtcvad takes, and the cheapest per second of audio
_FRAMES_PER_SECOND = SAMPLE_RATE / FRAME


# The power leaves out what carries no speech: DC, mains hum (50 or 60 Hz) and its second harmonic, from rectifiers. Low
# voices begin at 80 Hz, but a telephone passes nothing under 300 Hz and loses no word.
_HUM_HZ = 120
# Waves under 120 Hz have 2 * 120 * 0.03 = 7.2 degrees of freedom within 30 ms. Three more make the loss 25 dB.
_HUM_SHAPES = 10


def power(dbfs: float) -> float:
    """Mean square of a signal whose RMS is `dbfs` decibels relative to full scale (1.0)."""
    return float(10 ** (dbfs / 10))


def _hum() -> NDArray[np.float32]:
    """The shapes of DC and hum within a frame: (_HUM_SHAPES, FRAME), orthonormal.

    They are the first singular vectors of waves of 0 to 120 Hz in any phase (sampled Slepian sequences). DC weighs
    most, so the first shape is constant and removes DC completely.
    """
    turns = 2 * np.pi * np.arange(5, _HUM_HZ + 1, 5)[:, None] * np.arange(FRAME) / SAMPLE_RATE
    waves = np.concatenate([np.full((1, FRAME), 1000.0), np.cos(turns), np.sin(turns)])
    return np.linalg.svd(waves, full_matrices=False).Vh[:_HUM_SHAPES].astype(np.float32)


class SpeechDetector(Protocol):
    """Decides for each frame whether it contains speech. It may adapt to earlier frames."""

    def detect(self, frames: NDArray[np.float32]) -> list[bool]:
        """Take float32 of shape (n, FRAME) in [-1, 1] at 16 kHz. Returns n decisions."""
        ...


class WebRtcDetector:
    """webrtcvad, after an energy floor.

    webrtcvad takes white noise for speech (py-webrtcvad #60), so a frame's power must also exceed two limits. One is an
    absolute floor. The other is the background: a running minimum of the frames' power that rises slowly.

    That power excludes DC and hum. Otherwise quiet speech would never exceed a background of steady hum. Each frame is
    filtered by itself: the least-squares fit of everything up to 120 Hz is subtracted. The loss is 25 dB or more
    there. At 140 Hz it is 5 dB, and at 180 Hz 1 dB.

    webrtcvad gets unfiltered frames, as it has its own high-pass at 80 Hz. It finds no less speech in them than in
    filtered ones, and more where the hum has a third harmonic.
    """

    ABSOLUTE_FLOOR = power(-60)  # above an idle 16-bit line or mu-law codec, below whispered speech at arm's length
    ABOVE_BACKGROUND = power(6)  # steady noise varies by less than 1 dB over 480 samples, so it never passes
    RISE = power(6 / _FRAMES_PER_SECOND)  # 6 dB/s: new noise at -36 dBFS is learnt within 4 s, and the dips
    # between syllables (under 1 s apart) pull the estimate back down while somebody speaks
    HIGHEST_BACKGROUND = power(-35)  # at most, as decoded noise costs less than dropped speech

    _HUM = _hum()

    def __init__(self, aggressiveness: int = 2) -> None:
        self._vad = webrtcvad.Vad(aggressiveness)
        self._background = self.ABSOLUTE_FLOOR / self.ABOVE_BACKGROUND

    def detect(self, frames: NDArray[np.float32]) -> list[bool]:
        powers = self._powers(frames).tolist()
        pcm = (frames * np.float32(32767)).astype("<i2").tobytes()
        is_speech, background, size = self._vad.is_speech, self._background, 2 * FRAME
        decisions = []
        for i, p in enumerate(powers):
            loud = p > self.ABSOLUTE_FLOOR and p > background * self.ABOVE_BACKGROUND
            # Always called, because webrtcvad adapts to every frame that it gets, including quiet ones.
            decisions.append(is_speech(pcm[i * size : (i + 1) * size], SAMPLE_RATE) and loud)
            background = min(p, background * self.RISE, self.HIGHEST_BACKGROUND)
            background = max(background, 1e-12)  # or after digital silence it could never rise again
        self._background = background
        return decisions

    def _powers(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean squares of the frames without DC and hum. Frames below the floor in any case are not filtered."""
        energies: NDArray[np.float32] = np.vecdot(frames, frames)
        floor = self.ABSOLUTE_FLOOR * FRAME
        if energies.max() > floor:
            # vecdot, because a matrix product rounds differently for different numbers of frames.
            hum = np.vecdot(frames[:, None], self._HUM)
            energies -= np.where(energies > floor, np.vecdot(hum, hum), 0)
        energies *= np.float32(1 / FRAME)
        return energies
