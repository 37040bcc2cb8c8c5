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
    """Resamples one contiguous run of float32 mono from `rate` Hz to 16 kHz.

    The output does not depend on how the input is split, as soxr counts its blocks by their position in the input. It
    holds back up to about 0.1 s, the length of its filter, and `flush` returns that.
    """

    def __init__(self, rate: int) -> None:
        self._soxr = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, "float32", "HQ")
        self._given = 0

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take samples (n,). Returns those that are ready, (m,)."""
        out: NDArray[np.float32] = samples if self._soxr is None else self._soxr.resample_chunk(samples)
        self._given += len(out)
        return out

    def flush(self, total: int) -> NDArray[np.float32]:
        """End the run. Returns the rest, cut or zero-padded so that `total` samples were returned in all."""
        tail = _NOTHING if self._soxr is None else self._soxr.resample_chunk(_NOTHING, last=True)
        missing = total - self._given
        if missing > len(tail):
            tail = np.concatenate([tail, np.zeros(missing - len(tail), np.float32)])
        self._given = total
        return tail[:missing]
