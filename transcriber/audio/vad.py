"""Frames of audio to speech or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import webrtcvad

from transcriber.domain.timeline import SAMPLE_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAME = 480  # samples: 30 ms, the longest frame webrtcvad takes and the cheapest per second of audio
_FRAMES_PER_SECOND = SAMPLE_RATE / FRAME


# What carries no speech is left out of the power: DC, the hum of the mains (50 or 60 Hz), and its second harmonic,
# which a rectifier makes. Low voices begin at 80 Hz, but a telephone passes nothing under 300 Hz and loses no word.
_HUM_HZ = 120
# Waves under 120 Hz have 2 * 120 * 0.03 = 7.2 degrees of freedom within 30 ms; three more bring the loss to 25 dB.
_HUM_SHAPES = 10


def power(dbfs: float) -> float:
    """Mean square of a signal whose RMS is `dbfs` decibels relative to full scale (1.0)."""
    return float(10 ** (dbfs / 10))


def _hum() -> NDArray[np.float32]:
    """The shapes that DC and hum have within a frame: (_HUM_SHAPES, FRAME), orthonormal.

    They are the first singular vectors of waves of 0 to 120 Hz in any phase (sampled Slepian sequences). DC weighs
    most: the first one is constant, and nothing of DC is left.
    """
    turns = 2 * np.pi * np.arange(5, _HUM_HZ + 1, 5)[:, None] * np.arange(FRAME) / SAMPLE_RATE
    waves = np.concatenate([np.full((1, FRAME), 1000.0), np.cos(turns), np.sin(turns)])
    return np.linalg.svd(waves, full_matrices=False).Vh[:_HUM_SHAPES].astype(np.float32)


class SpeechDetector(Protocol):
    """Says of each frame whether it holds speech; may adapt to what it heard before."""

    def detect(self, frames: NDArray[np.float32]) -> list[bool]:
        """Take (n, FRAME) float32 in [-1, 1] at 16 kHz, return n decisions."""
        ...


class WebRtcDetector:
    """webrtcvad after an energy floor.

    webrtcvad takes white noise for speech (py-webrtcvad #60), so a frame must also stand out: above an absolute floor,
    and above the background, which is tracked as the running minimum of the frames' power and rises slowly.

    That power is without DC and hum, or a steady hum would be a background that quiet speech never stands out of. Each
    frame is filtered by itself: the least-squares fit of everything up to 120 Hz is taken out. It loses 25 dB or more
    there, 5 dB at 140 Hz and 1 dB at 180 Hz. webrtcvad has its own high-pass at 80 Hz and is shown the frames as
    they are: it hears no less speech in them than in filtered ones, and more where the hum has a third harmonic.
    """

    ABSOLUTE_FLOOR = power(
        -60
    )  # an idle 16-bit line or mu-law codec lies below; whispered speech at arm's length above
    ABOVE_BACKGROUND = power(6)  # steady noise strays less than 1 dB over 480 samples, so 6 dB never passes it
    RISE = power(6 / _FRAMES_PER_SECOND)  # 6 dB/s: noise that begins at -36 dBFS is learnt within 4 s, and the dips
    # between syllables (under 1 s apart) keep pulling the estimate back down while somebody speaks
    HIGHEST_BACKGROUND = power(
        -35
    )  # never mute loud audio: wrongly decoded noise costs less than wrongly dropped speech

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
            # webrtcvad adapts to every frame it is shown, quiet ones too: always ask.
            decisions.append(is_speech(pcm[i * size : (i + 1) * size], SAMPLE_RATE) and loud)
            background = min(p, background * self.RISE, self.HIGHEST_BACKGROUND)
            background = max(background, 1e-12)  # so that digital silence does not stop the rise for ever
        self._background = background
        return decisions

    def _powers(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean squares of the frames without DC and hum; as they are for those that lie below the floor anyhow."""
        energies: NDArray[np.float32] = np.vecdot(frames, frames)
        floor = self.ABSOLUTE_FLOOR * FRAME
        if energies.max() > floor:
            # vecdot and no matrix product, which would round in another way for another number of frames.
            hum = np.vecdot(frames[:, None], self._HUM)
            energies -= np.where(energies > floor, np.vecdot(hum, hum), 0)
        energies *= np.float32(1 / FRAME)
        return energies
