"""What an engine costs, measured by running it."""

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

PASSES = 3  # that count; one pass more is the warm-up (first-touch memory, lazy tables)
_BUDGET_SECS = 10.0  # with a model this slow one pass says enough
_LEAST_RTF = 1e-6  # of an engine that does nothing


@dataclass(frozen=True, slots=True)
class Warm:
    """An engine that has decoded, and what that cost."""

    engine: Engine
    rtf: float
    pace: EngineSpeed


def measure(one_pass: Callable[[], float], passes: int = PASSES) -> list[float]:
    """Warm up, then measure: the sorted seconds of the passes; of the warm-up itself when nothing came after it."""
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
    """The real-time factor of a pass over `speech` that took so many seconds."""
    return max(seconds * SAMPLE_RATE / len(speech), _LEAST_RTF)


def warm(engine: Engine, speech: NDArray[np.float32], rtf: float) -> Warm:
    """An engine that takes `rtf` for a window like `speech`."""
    seconds = len(speech) / SAMPLE_RATE
    return Warm(engine, rtf, EngineSpeed(rtf * seconds, engine.work(len(speech)), seconds))
