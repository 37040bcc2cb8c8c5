"""Measures what the engine alone needs for the recording. Loads are shares of that capacity."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import speech
from transcriber.worker.decoding import decode_batch
from transcriber.worker.engines.loading import load_engine
from transcriber.worker.one_thread import one_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transcriber.domain.timeline import Window
    from transcriber.settings import Settings
    from transcriber.worker.engine import Engine

_BUDGET = 3.0  # seconds: ten passes of the bundled model, or one of a slow one; passes of 0.3 s vary by a few percent


@dataclass(frozen=True, slots=True)
class Cost:
    """Engine seconds for one pass over the recording, its windows, and its length in seconds."""

    seconds: float
    windows: int
    recorded: float

    def streams(self, load: float) -> tuple[int, float]:
        """The number of streams and the seconds of their cycle that make this share of the engine's capacity.

        Each stream repeats the recording with silence after it, so that any load is possible.
        """
        count = max(1, math.ceil(load * self.recorded / self.seconds))
        return count, count * self.seconds / load

    @property
    def a_window(self) -> float:
        """Mean engine seconds for a window."""
        return self.seconds / self.windows


async def cost(settings: Settings) -> Cost:
    """Decode the recording's windows, cut as in the daemon, while nothing else runs. Takes each pass's median.

    A pass has as many windows as the engine decodes together at most, as in a daemon under load.
    """
    material = speech.recording()
    windows = speech.windows(material, settings.sessions.stream)
    passes: list[list[float]] = []
    with one_thread() as call:
        engine = await call(load_engine, settings.whisper)
        most = max(engine.batch_sizes)
        together = [windows[at : at + most] for at in range(0, len(windows), most)]
        await call(seconds, engine, together[0])  # first-touch memory, lazy tables
        began = time.monotonic()
        while not passes or time.monotonic() - began < _BUDGET:
            # One call per pass, because Ctrl-C has to wait for the running call.
            passes.append([await call(seconds, engine, some) for some in together])
    return Cost(sum(map(median, zip(*passes, strict=True))), len(windows), material.seconds)


def seconds(engine: Engine, windows: Sequence[Window]) -> float:
    """Decode windows as the daemon does under load, with all their passes. Returns the seconds that it took."""
    began = time.monotonic()
    for _ in decode_batch(engine, windows, None, _always, quick=True):
        pass
    return time.monotonic() - began


def _always(_places: Sequence[int], _works: Sequence[float]) -> bool:
    return True
