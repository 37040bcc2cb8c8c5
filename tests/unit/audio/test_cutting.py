"""Parts of a long recording: without overlap, short enough, and cut in pauses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcriber.audio.cutting import Cutter, quietest

RATE = 16_000
LONGEST = 30 * RATE


def cut(samples, longest, sizes):
    """Push the samples in chunks of these sizes, over and over."""
    cutter, parts, at, turn = Cutter(longest), [], 0, 0
    while at < len(samples):
        size = sizes[turn % len(sizes)]
        parts += cutter.push(samples[at : at + size])
        at, turn = at + size, turn + 1
    return parts + cutter.flush()


@given(st.integers(0, 9 * RATE), st.integers(RATE // 2, 4 * RATE), st.lists(st.integers(1, 3 * RATE), min_size=1))
def test_parts_tile_the_recording_however_it_arrives(size, longest, sizes) -> None:
    """Every sample is in exactly one part, and no part is longer than allowed."""
    samples = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    parts = cut(samples, longest, sizes)
    assert all(0 < len(part.samples) <= longest for part in parts)
    assert [p.start for p in parts] == [0, *np.cumsum([len(p.samples) for p in parts])][: len(parts)]
    assert np.array_equal(np.concatenate([np.zeros(0, np.float32), *(p.samples for p in parts)]), samples)
    again = cut(samples, longest, [RATE])
    assert [(p.start, len(p.samples)) for p in again] == [(p.start, len(p.samples)) for p in parts]


@pytest.mark.parametrize("disturbance", ["none", "noise", "hum", "offset"])
def test_cut_lies_in_the_pause(disturbance) -> None:
    """Also where noise, mains hum or an offset make the pause as loud as speech, or louder."""
    rng = np.random.default_rng(1)
    time = np.arange(LONGEST) / RATE
    speech = 0.1 * rng.standard_normal(LONGEST) * (1 + np.sin(2 * np.pi * 4 * time))
    begin, end = int(24.3 * RATE), int(24.9 * RATE)
    speech[begin:end] = 0
    speech[int(27.0 * RATE) : int(27.1 * RATE)] = 0  # a closure within a word is as quiet, and shorter
    more = {
        "none": 0.0,
        "noise": 0.02 * rng.standard_normal(LONGEST),
        "hum": 0.8 * np.sin(2 * np.pi * 50 * time),
        "offset": 0.5,
    }[disturbance]
    at = quietest((speech + more).astype(np.float32))
    assert begin + RATE // 50 <= at <= end - RATE // 50


def test_cut_of_silence_is_in_the_last_third() -> None:
    """Nothing is quieter than anything else."""
    assert 20 * RATE <= quietest(np.zeros(LONGEST, np.float32)) <= LONGEST
