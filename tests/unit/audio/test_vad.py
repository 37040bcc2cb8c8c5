"""Which frames count as speech."""

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
    """webrtcvad alone passes white noise. The floor that follows the background does not."""
    noise = np.random.default_rng(1).standard_normal(SECONDS * 16_000) * 10 ** (dbfs / 20)
    voiced = decisions(noise)
    assert sum(voiced[len(voiced) // 4 :]) == 0
    assert sum(voiced) <= 12


def test_digital_silence_and_an_idle_line_are_not_speech() -> None:
    """The signals are zeros, and a line that toggles its last bit."""
    assert not any(decisions(np.zeros(SECONDS * 16_000)))
    idle = np.random.default_rng(2).integers(-1, 2, SECONDS * 16_000) / 32768
    assert not any(decisions(idle))


@pytest.mark.parametrize("dbfs", [-60, -45])
def test_speech_is_heard_over_background_noise(heldout: Speech, dbfs: float) -> None:
    """Most frames in known speech are voiced, and few in the pauses. Rolls bridge what is missing."""
    part = heldout.cut(0, 30)
    noise = np.random.default_rng(3).standard_normal(len(part.samples)) * 10 ** (dbfs / 20)
    voiced = np.array(decisions(part.samples + noise))
    middle = (np.arange(len(voiced)) + 0.5) * FRAME / 16_000
    spoken = np.zeros(len(voiced), bool)
    for row in part.rows:
        spoken |= (middle > row["start"]) & (middle < row["end"])
    assert voiced[spoken].mean() > 0.7
    assert voiced[~spoken].mean() < 0.35


def hum(count: int, hertz: float, dbfs: float) -> np.ndarray:
    """A sine whose RMS is `dbfs`."""
    return np.sqrt(2) * 10 ** (dbfs / 20) * np.sin(2 * np.pi * hertz * np.arange(count) / 16_000)


DISTURBED = {
    "DC": lambda n: np.full(n, 0.01),
    "much DC": lambda n: np.full(n, -0.3),
    "hum of 50 Hz": lambda n: hum(n, 50, -40),
    "hum of 50 Hz and DC": lambda n: 0.01 + hum(n, 50, -40),
    "hum of 60 Hz with its second harmonic": lambda n: hum(n, 60, -40) + hum(n, 120, -46),
}


@pytest.mark.parametrize("disturbance", DISTURBED.values(), ids=DISTURBED.keys())
@pytest.mark.parametrize("level", [1.0, 0.1])
def test_dc_and_hum_hide_no_speech(heldout: Speech, disturbance, level: float) -> None:
    """With DC or hum, loud and quiet speech is heard as without, and no more is heard in its pauses."""
    speech = heldout.cut(0, 20).samples * level
    clean = np.array(decisions(speech))
    assert clean.mean() > 0.4
    heard = np.array(decisions(speech + disturbance(len(speech))))
    assert (heard & clean).sum() > 0.95 * clean.sum()
    assert (heard & ~clean).sum() < 0.05 * clean.sum()


@pytest.mark.parametrize("disturbance", DISTURBED.values(), ids=DISTURBED.keys())
def test_dc_and_hum_alone_are_no_speech(disturbance) -> None:
    assert sum(decisions(disturbance(SECONDS * 16_000))) <= 12


@pytest.mark.parametrize(
    ("hertz", "least", "most"),
    [
        *[(f, -200, -24.5) for f in (0, 10, 50, 60, 85, 100, 120)],
        (140, -12, -4),
        *[(f, -1, 0.01) for f in (180, 200, 300, 3000)],
    ],
)
def test_the_power_of_a_frame_leaves_out_what_is_under_120_hz(hertz: float, least: float, most: float) -> None:
    """In decibels, whatever the phase. A voice keeps its power."""
    phases = np.linspace(0, np.pi, 16)[:, None]
    waves = np.cos(2 * np.pi * hertz * np.arange(FRAME) / 16_000 + phases) * np.sqrt(2) * 0.1
    powers = WebRtcDetector()._powers(waves.astype(np.float32)[np.abs(waves).max(axis=1) > 0.01])
    decibels = 10 * np.log10(np.maximum(powers, 1e-20) / 0.01)
    assert decibels.max() <= most
    assert decibels.min() >= least


def test_decisions_do_not_depend_on_how_frames_are_batched() -> None:
    """One frame at a time, or all at once, gives the same answers."""
    samples = np.random.default_rng(4).standard_normal(FRAME * 200).astype(np.float32) * 0.05
    samples[FRAME * 50 : FRAME * 100] *= 4
    samples[FRAME * 120 :] += (0.01 + hum(FRAME * 80, 50, -40)).astype(np.float32)
    frames = samples.reshape(200, FRAME)
    one_by_one = WebRtcDetector()
    assert [one_by_one.detect(frames[i : i + 1])[0] for i in range(200)] == decisions(samples)
