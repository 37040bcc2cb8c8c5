"""Encoder outputs of several lengths in one array."""

from __future__ import annotations

import numpy as np

from transcriber.worker.engines.joining import joined


def encoded(*positions: float) -> np.ndarray:
    """One window's output; each position has its number in both columns."""
    return np.repeat(np.array(positions, np.float32)[np.newaxis, :, np.newaxis], 2, axis=2)


def test_shorter_windows_get_their_own_silence_again() -> None:
    """Only what comes after their samples; the longest one stays as it is."""
    short, long = encoded(1, 2, 8, 9), encoded(*range(10))
    both = joined([short, long], [2, 3])
    assert both.shape == (2, 10, 2)
    assert both[0, :, 1].tolist() == [1, 2, 8, 9, 8, 9, 8, 9, 8, 9]
    assert both[1].tolist() == long[0].tolist()


def test_window_without_silence_repeats_its_last_position() -> None:
    """Then there is nothing better, and no more than one position of speech is heard twice."""
    assert joined([encoded(1, 2), encoded(3, 4, 5, 6)], [0, 0])[0, :, 0].tolist() == [1, 2, 2, 2]


def test_no_more_than_a_second_of_silence_is_repeated() -> None:
    """What comes directly after the words is not repeated."""
    short = encoded(*range(200))
    assert joined([short, encoded(*range(300))], [150, 0])[0, 200:, 0].tolist() == [*range(150, 200)] * 2
