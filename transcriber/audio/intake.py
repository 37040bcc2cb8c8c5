"""Decodes, mixes and resamples raw PCM of one format to 16 kHz mono."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from transcriber.audio import pcm
from transcriber.audio.mixing import Mixer
from transcriber.audio.resample import Resampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transcriber.domain.chunks import AudioFormat
    from transcriber.domain.measurements import Counts


class Intake:
    """Converts one contiguous run of PCM after another. The output does not depend on how the PCM is split.

    It holds back up to about 0.1 s, which `end` returns. Repaired and unmixed samples are added to `counts`.
    """

    def __init__(self, audio_format: AudioFormat, counts: Counts) -> None:
        self._format = audio_format
        self._counts = counts
        self._mixer = Mixer(audio_format.channels, audio_format.rate)
        self._resampler = Resampler(audio_format.rate)

    def push(self, raw: bytes) -> NDArray[np.float32]:
        """Take whole sample frames. Returns the samples that are ready, float32 of shape (n,)."""
        samples, repaired = pcm.decode(raw, self._format)
        self._counts.repaired += repaired
        return self._resampler.push(self._mixed(self._mixer.push(samples)))

    def end(self, total: int) -> NDArray[np.float32]:
        """End the run, and begin a new one. Returns the rest, cut or zero-padded to `total` samples in all."""
        rest = self._mixed(self._mixer.flush())
        last = self._resampler.push(rest) if len(rest) else rest
        tail = self._resampler.flush(total)
        self._resampler = Resampler(self._format.rate)
        return np.concatenate([last, tail])

    def _mixed(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        self._counts.unmixed += self._mixer.unmixed
        self._mixer.unmixed = 0
        return samples
