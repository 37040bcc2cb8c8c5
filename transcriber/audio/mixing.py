"""Mixes channels to one, without losing sound that is in opposite phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from transcriber.audio.vad import WebRtcDetector

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCKS_PER_SECOND = 50  # 20 ms: longer than a period of the lowest voice (12 ms), shorter than a speech sound
# Unrelated channels mix to the mean of their powers over their number. That counts as 1 here, also when all but one
# are silent. Two equal channels give 2; with correlation r they give 1 + r.
_LOST = 0.1  # 10 dB less than unrelated channels: r = -0.9, or opposite phase with levels within 4 dB of each other
_KEPT = 0.5  # 3 dB less, or r = -0.5: two microphones in one room stay above it
_LOUDER = 4  # 6 dB: another channel must be so much louder than the one in use
_MIDDLE_HZ = 500  # where speech has most power: here a difference of neighbours is as strong as the signal


class Mixer:
    """Mixes one run of interleaved float32 to mono: the mean, or the louder channel where the mean cancels.

    The choice is made for each block of 20 ms. Blocks are counted from the run's start, so the result does not depend
    on how the input is split. An incomplete block is held back; `flush` returns it. `unmixed` counts the sample frames
    for which a single channel was taken.
    """

    def __init__(self, channels: int, rate: int) -> None:
        self._channels = channels
        self._block = rate // _BLOCKS_PER_SECOND
        difference_at_500_hz = (2 * np.sin(np.pi * _MIDDLE_HZ / rate)) ** 2
        self._floor = WebRtcDetector.ABSOLUTE_FLOOR * difference_at_500_hz  # quieter blocks keep the last decision
        self._rest = np.zeros(0, np.float32)
        self._taken: int | None = None  # the channel in use; None: the mean
        self.unmixed = 0

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take interleaved samples (frames * channels,). Returns the mono samples that are ready, (n,)."""
        if self._channels == 1:
            return samples
        samples = np.concatenate([self._rest, samples])
        ready = len(samples) // (self._block * self._channels)
        end = ready * self._block * self._channels
        self._rest = samples[end:].copy()
        return self._mix(samples[:end], self._block) if ready else samples[:0]

    def flush(self) -> NDArray[np.float32]:
        """End the run. Returns the samples that were held back, (n,)."""
        rest, self._rest = self._rest, self._rest[:0]
        return self._mix(rest, len(rest) // self._channels) if len(rest) else rest

    def _mix(self, samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
        """Mix whole blocks of `length` frames."""
        planes = np.ascontiguousarray(samples.reshape(-1, self._channels).T).reshape(self._channels, -1, length)
        mixed: NDArray[np.float32] = planes.mean(axis=0)
        # A shorter rest keeps the last decision: so few frames may cancel each other by chance.
        chosen = self._choose(planes) if 2 * length > self._block else [self._taken]
        for block, channel in enumerate(chosen):
            if channel is not None:
                mixed[block] = planes[channel, block]
                self.unmixed += length
        return mixed.reshape(-1)

    def _choose(self, planes: NDArray[np.float32]) -> list[int | None]:
        """Return for each block the channel to take, None for the mean. `planes`: (channels, blocks, length)."""
        # Differences of neighbours hardly contain DC and hum, which may be in phase where speech is not.
        steps = planes[:, :, 1:] - planes[:, :, :-1]
        total = steps.sum(axis=0)
        powers = np.vecdot(steps, steps) / planes.shape[2]
        together = np.vecdot(total, total) / planes.shape[2]
        apart, loudest = powers.sum(axis=0), powers.argmax(axis=0)
        loud = powers.max(axis=0) > self._floor
        lost = loud & (together < _LOST * apart)
        if self._taken is None and not lost.any():
            return []
        kept = loud & (together > _KEPT * apart)
        chosen = []
        for block, loudest_here in enumerate(loudest.tolist()):
            if self._taken is None:
                self._taken = loudest_here if lost[block] else None
            elif kept[block]:
                self._taken = None
            elif loud[block] and powers[loudest_here, block] > _LOUDER * powers[self._taken, block]:
                self._taken = loudest_here
            chosen.append(self._taken)
        return chosen
