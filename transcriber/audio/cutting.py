"""Cuts a long recording into parts that are transcribed apart, where it is quiet. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from transcriber.domain.timeline import SAMPLE_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HOP = SAMPLE_RATE // 100  # 10 ms: the grid on which a cut is placed
_PAUSE = 48  # hops: the shortest pause that ends an utterance, so two parts do not share one
_CLOSURE = 6  # hops, 60 ms: longer than the closure inside a stop consonant


class Cut(NamedTuple):
    """A part of a recording: its first sample's index, and float32 of shape (n,), mono at 16 kHz."""

    start: int
    samples: NDArray[np.float32]


class Cutter:
    """Cuts 16 kHz float32 mono into consecutive parts of at most `longest` samples.

    A cut is made in the last third of a full part: within its quietest 0.48 s, at the quietest 60 ms. What is louder
    needs no threshold, so that a noisy line is cut in its pauses too. The parts do not depend on how the samples are
    split.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._start = 0
        self._held: list[NDArray[np.float32]] = []
        self._size = 0

    def push(self, samples: NDArray[np.float32]) -> list[Cut]:
        """Take the next samples (n,). Returns the parts that are complete."""
        self._held.append(samples)
        self._size += len(samples)
        parts: list[Cut] = []
        while self._size > self._longest:
            data = np.concatenate(self._held)
            parts.append(self._cut(data, quietest(data[: self._longest])))
        return parts

    def flush(self) -> list[Cut]:
        """Return the rest, if there is any."""
        if not self._size:
            return []
        data = np.concatenate(self._held)
        return [self._cut(data, len(data))]

    def _cut(self, data: NDArray[np.float32], at: int) -> Cut:
        part = Cut(self._start, data[:at].copy())  # a copy, so that the rest is freed on its own
        self._start += at
        self._held = [data[at:].copy()]
        self._size = len(data) - at
        return part


def quietest(samples: NDArray[np.float32]) -> int:
    """Where to cut a full part (n,), as `Cutter` says: an index in its last third."""
    begin = len(samples) * 2 // 3
    # Differences of neighbours hardly contain DC and hum, which may be louder than speech.
    steps = np.diff(samples[begin:])
    hops = len(steps) // _HOP
    if hops <= _PAUSE:  # parts under two seconds: nothing to choose from
        return len(samples)
    energy = np.square(steps[: hops * _HOP].reshape(hops, _HOP)).sum(axis=1)
    pauses = np.convolve(energy, np.ones(_PAUSE), "valid")
    pause = len(pauses) - 1 - int(np.argmin(pauses[::-1]))  # of equals the last, for the fewest parts
    closure = np.convolve(energy[pause : pause + _PAUSE], np.ones(_CLOSURE), "valid")
    # Here the one in the middle of the pause.
    best = np.flatnonzero(closure <= closure.min())
    return begin + (pause + int(best[len(best) // 2]) + _CLOSURE // 2) * _HOP
