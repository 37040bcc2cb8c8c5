"""What the engine alone needs for the recording: the capacity that loads are shares of."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from transcriber.bench import speech
from transcriber.worker.engine import WhisperEngine

if TYPE_CHECKING:
    from transcriber.settings import Settings

_BUDGET = 5.0  # seconds: three passes of a fast model, one of a slow one
_PASSES = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of engine for one pass over the recording, its windows, and its length in seconds."""

    seconds: float
    windows: int
    recorded: float

    def streams(self, load: float) -> tuple[int, float]:
        """How many streams, and how long each one's repeated cycle, make this share of the engine's capacity.

        Each stream plays the recording and then is silent for a while: so any load can be made to measure.
        """
        count = max(1, math.ceil(load * self.recorded / self.seconds))
        return count, count * self.seconds / load

    @property
    def a_window(self) -> float:
        """Mean seconds of engine for a window."""
        return self.seconds / self.windows


def cost(settings: Settings) -> Cost:
    """Decode the recording's windows, cut as the daemon cuts them, with nothing else going on; median of passes."""
    material = speech.recording()
    windows = speech.windows(material, settings.sessions.stream)
    engine = WhisperEngine(settings.whisper)
    engine.transcribe(windows[0].samples, None)  # first-touch memory, lazy tables
    passes: list[float] = []
    began = time.monotonic()
    while len(passes) < _PASSES and (not passes or time.monotonic() - began < _BUDGET):
        before = time.monotonic()
        for window in windows:
            engine.transcribe(window.samples, None)
        passes.append(time.monotonic() - before)
    return Cost(median(passes), len(windows), material.seconds)
