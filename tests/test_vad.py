"""What counts as speech, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
from harness import Speech

from transcriber.audio.vad import FRAME, WebRtcDetector

SECONDS = 20


def decisions(samples: np.ndarray) -> list[bool]:
    count = len(samples) // FRAME
    return WebRtcDetector().detect(samples[: count * FRAME].astype(np.float32).reshape(count, FRAME))


@pytest.mark.parametrize("dbfs", [-60, -50, -40, -32])
def test_steady_white_noise_is_not_speech(dbfs: float) -> None:
    """webrtcvad alone passes white noise; the floor that follows the background does not."""
    noise = np.random.default_rng(1).standard_normal(SECONDS * 16_000) * 10 ** (dbfs / 20)
    voiced = decisions(noise)
    assert sum(voiced[len(voiced) // 4 :]) == 0
    assert sum(voiced) <= 12


def test_digital_silence_and_an_idle_line_are_not_speech() -> None:
    """Zeros, and a line that toggles its last bit, hold nothing."""
    assert not any(decisions(np.zeros(SECONDS * 16_000)))
    idle = np.random.default_rng(2).integers(-1, 2, SECONDS * 16_000) / 32768
    assert not any(decisions(idle))


@pytest.mark.parametrize("dbfs", [-60, -45])
def test_speech_is_heard_over_background_noise(heldout: Speech, dbfs: float) -> None:
    """Of the frames inside known speech most are voiced, of those in the pauses few; rolls bridge what is missing."""
    part = heldout.cut(0, 30)
    noise = np.random.default_rng(3).standard_normal(len(part.samples)) * 10 ** (dbfs / 20)
    voiced = np.array(decisions(part.samples + noise))
    middle = (np.arange(len(voiced)) + 0.5) * FRAME / 16_000
    spoken = np.zeros(len(voiced), bool)
    for row in part.rows:
        spoken |= (middle > row["start"]) & (middle < row["end"])
    assert voiced[spoken].mean() > 0.7
    assert voiced[~spoken].mean() < 0.35


def test_decisions_do_not_depend_on_how_frames_are_batched() -> None:
    """One frame at a time or all at once: the same answers."""
    samples = np.random.default_rng(4).standard_normal(FRAME * 200).astype(np.float32) * 0.05
    samples[FRAME * 50 : FRAME * 100] *= 4
    frames = samples.reshape(200, FRAME)
    one_by_one = WebRtcDetector()
    assert [one_by_one.detect(frames[i : i + 1])[0] for i in range(200)] == decisions(samples)
