"""Measures what an engine costs, by running it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transcriber.domain.errors import EngineError
from transcriber.domain.timeline import SAMPLE_RATE
from transcriber.worker.admission import EngineSpeed
from transcriber.worker.costs import PassCosts
from transcriber.worker.engine import Device, Speech

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from transcriber.worker.cancellation import Stop
    from transcriber.worker.engine import Engine

log = logging.getLogger(__name__)

PASSES = 3  # measured, after one pass as the warm-up (first-touch memory, lazy tables)
_BUDGET_SECS = 10.0  # a model so slow that it exceeds this is measured by fewer passes
_LEAST_RTF = 1e-6  # for an engine that does nothing
_LEAST_SECS = 1e-9  # the same
# A window waits for the pass that runs, then for the windows before it, then for its own pass. So a pass that takes a
# quarter of L_max leaves half of it for the queue.
_PASS_SHARE = 0.25
_WORTH = 0.9  # of the cost of a window in the next smaller batch; batches delay the first of their windows

# Runs one pass over so many windows of speech, and returns its seconds. `quick`: without beam search.
RunPass = Callable[[int, bool], float]
Choose = Callable[[list[float]], float]


@dataclass(frozen=True, slots=True)
class MeasuredEngine:
    """An engine that is warmed up, the real-time factor of its full passes, its speed and its passes' costs."""

    engine: Engine
    rtf: float
    speed: EngineSpeed
    costs: PassCosts


def median(took: list[float]) -> float:
    """The middle one."""
    return sorted(took)[len(took) // 2]


def timed(
    engine: Engine, speech: NDArray[np.float32], count: int = 1, stop: Stop | None = None, *, quick: bool = True
) -> float:
    """Seconds that one pass takes over `count` times the speech. Raises `EngineError`, `Stopped`."""
    before = time.monotonic()
    engine.transcribe_many([Speech(speech, None)] * count, stop, quick=quick)
    return time.monotonic() - before


def measured(  # noqa: PLR0913 - what the two callers do differently
    engine: Engine,
    speech: NDArray[np.float32],
    run: RunPass,
    max_latency: float,
    *,
    choose: Choose = median,
    rtf: float | None = None,
) -> MeasuredEngine:
    """Measure the engine on windows like `speech`. `choose` picks one of several measurements.

    With an `rtf` of full passes, only the costs of batches and of beam search are measured.
    """
    seconds = len(speech) / SAMPLE_RATE
    plain = rtf is not None and not engine.beams and max(engine.batch_sizes) == 1
    alone = max(_LEAST_SECS, choose(_passes(lambda: run(1, True), 0 if plain else PASSES)))
    most, full = _batch(engine, run, alone, _PASS_SHARE * max_latency)
    beam = max(1.0, choose(_passes(lambda: run(1, False), 1)) / alone) if engine.beams else 1.0
    partials = min(most, engine.workers) if _on_cpu(engine) else most  # on a CPU, those that take as long as one
    costs = PassCosts(weigh=engine.work, most=most, partials=partials, full=min(full / alone, most), beam=beam)
    rtf = rtf or max(full / (most * seconds), _LEAST_RTF)
    work = costs.together([engine.work(len(speech))] * most)
    return MeasuredEngine(engine, rtf, EngineSpeed(rtf * seconds * most, work, seconds * most), costs)


def _passes(run: Callable[[], float], count: int = PASSES) -> list[float]:
    """Warm up, then measure. Returns the seconds of the passes, or of the warm-up if it was the only one."""
    begin = time.monotonic()
    took = [run()]
    while len(took) <= count and time.monotonic() - begin <= _BUDGET_SECS:
        took.append(run())
    return took[1:] or took


def _batch(engine: Engine, run: RunPass, alone: float, longest: float) -> tuple[int, float]:
    """The most windows to decode in a pass, and the seconds of such a pass: not over `longest`, unless it is of one."""
    most, full = 1, alone
    for size in _sizes(engine, alone, longest):
        try:
            took = min(_passes(lambda size=size: run(size, True), 0 if _on_cpu(engine) else 1))  # type: ignore[misc]
        except EngineError as error:
            log.warning("no passes over %d windows: %s", size, error)
            break
        if took > longest:
            log.info("no passes over %d windows: one takes %.2f s, a quarter of L_max is %.2f s", size, took, longest)
            break
        if most in engine.batch_sizes and took / size > _WORTH * full / most:
            break
        most, full = size, took
    return most, full


def _sizes(engine: Engine, alone: float, longest: float) -> list[int]:
    """The batches to measure. On a CPU, where that takes long, it is the largest that surely takes no longer.

    There windows take at most as long together as one after another.
    """
    sizes = [size for size in engine.batch_sizes if size > 1]
    if _on_cpu(engine):
        return [size for size in sizes if size * alone <= longest * engine.workers][-1:]
    return sizes


def _on_cpu(engine: Engine) -> bool:
    return engine.device is Device.CPU
