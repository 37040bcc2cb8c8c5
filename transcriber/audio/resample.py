"""Streaming resampling to 16 kHz that never loses or invents a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import soxr

from transcriber.domain.timeline import SAMPLE_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOTHING = np.zeros(0, np.float32)


class Resampler:
    """Brings one contiguous run of float32 mono from `rate` Hz to 16 kHz.

    What comes out is the same for any split of the same input, because soxr's blocks follow the input's position and
    not the calls. soxr holds back up to about 0.1 s (its filter's length); `flush` yields that.
    """

    def __init__(self, rate: int) -> None:
        self._soxr = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, "float32", "HQ")
        self._given = 0

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take `samples` (n,), return what is ready, (m,)."""
        out: NDArray[np.float32] = samples if self._soxr is None else self._soxr.resample_chunk(samples)
        self._given += len(out)
        return out

    def flush(self, total: int) -> NDArray[np.float32]:
        """End the run: return what is held back, trimmed or zero-padded so that `total` samples were given in all."""
        tail = _NOTHING if self._soxr is None else self._soxr.resample_chunk(_NOTHING, last=True)
        missing = total - self._given
        if missing > len(tail):
            tail = np.concatenate([tail, np.zeros(missing - len(tail), np.float32)])
        self._given = total
        return tail[:missing]
