"""Frames of audio to speech or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import webrtcvad

from transcriber.messages import SAMPLE_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAME = 480  # samples: 30 ms, the longest frame webrtcvad takes and the cheapest per second of audio
_FRAMES_PER_SECOND = SAMPLE_RATE / FRAME


def power(dbfs: float) -> float:
    """Mean square of a signal whose RMS is `dbfs` decibels relative to full scale (1.0)."""
    return float(10 ** (dbfs / 10))


class SpeechDetector(Protocol):
    """Says of each frame whether it holds speech; may adapt to what it heard before."""

    def detect(self, frames: NDArray[np.float32]) -> list[bool]:
        """Take (n, FRAME) float32 in [-1, 1] at 16 kHz, return n decisions."""
        ...


class WebRtcDetector:
    """webrtcvad behind an energy floor.

    webrtcvad takes white noise for speech (py-webrtcvad #60), so a frame must also stand out: above an absolute floor,
    and above the background, which is tracked as the running minimum of the frames' power and rises slowly.
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

    def __init__(self, aggressiveness: int = 2) -> None:
        self._vad = webrtcvad.Vad(aggressiveness)
        self._background = self.ABSOLUTE_FLOOR / self.ABOVE_BACKGROUND

    def detect(self, frames: NDArray[np.float32]) -> list[bool]:
        powers = (np.vecdot(frames, frames) / FRAME).tolist()
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
