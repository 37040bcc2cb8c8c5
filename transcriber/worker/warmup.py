"""Measures what an engine costs, by running it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transcriber.domain.timeline import SAMPLE_RATE
from transcriber.worker.admission import EngineSpeed

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from transcriber.worker.cancellation import Stop
    from transcriber.worker.engine import Engine

PASSES = 3  # measured, after one pass as the warm-up (first-touch memory, lazy tables)
_BUDGET_SECS = 10.0  # a model so slow that it exceeds this is measured by fewer passes
_LEAST_RTF = 1e-6  # for an engine that does nothing


@dataclass(frozen=True, slots=True)
class MeasuredEngine:
    """An engine that is warmed up, and its measured speed."""

    engine: Engine
    rtf: float
    speed: EngineSpeed


def measure(one_pass: Callable[[], float], passes: int = PASSES) -> list[float]:
    """Warm up, then measure. Returns the sorted seconds of the passes, or of the warm-up if it was the only one."""
    begin = time.monotonic()
    took = [one_pass()]
    while len(took) <= passes and time.monotonic() - begin <= _BUDGET_SECS:
        took.append(one_pass())
    return sorted(took[1:] or took)


def timed(engine: Engine, speech: NDArray[np.float32], stop: Stop | None = None) -> float:
    """Seconds that one pass takes. Raises `EngineError`, `Stopped`."""
    before = time.monotonic()
    engine.transcribe(speech, None, stop)
    return time.monotonic() - before


def rtf_of(seconds: float, speech: NDArray[np.float32]) -> float:
    """The real-time factor of a pass over `speech` that took `seconds`."""
    return max(seconds * SAMPLE_RATE / len(speech), _LEAST_RTF)


def measured(engine: Engine, speech: NDArray[np.float32], rtf: float) -> MeasuredEngine:
    """Return the engine with the speed that follows from `rtf` for a window like `speech`."""
    seconds = len(speech) / SAMPLE_RATE
    return MeasuredEngine(engine, rtf, EngineSpeed(rtf * seconds, engine.work(len(speech)), seconds))
