"""Compares the daemon's thread on a full queue with the same engine in a plain loop."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import calibrate
from benchmarks.ways import Worker
from transcriber.worker.one_thread import one_thread

if TYPE_CHECKING:
    from transcriber.domain.timeline import Window
    from transcriber.worker.engine import Engine

# On a shared machine rounds vary by 2 to 4 %, and so does the best of them. The sum of the lower quartiles of the
# windows' times varies by 0.5 %.
_ROUNDS = 16
_ROUND_SECS = 0.5  # a round takes at least: the thread's start and end are 1.3 ms of it


async def measure(engine: Engine, windows: Sequence[Window], budget: float) -> dict[str, float]:
    """Windows a second through the daemon's thread, and through the engine in a plain loop.

    Runs as many rounds as fit into `budget` seconds, but at least one.
    """

    async def plainly() -> list[float]:
        with one_thread() as call:
            return [await call(calibrate.seconds, engine, [window]) for window in windows]

    windows = [*windows] * math.ceil(_ROUND_SECS / sum(await plainly()))
    began = time.monotonic()
    bare: list[list[float]] = []
    served: list[list[float]] = []
    while len(bare) < _ROUNDS and (not bare or time.monotonic() - began < budget):
        bare.append(await plainly())
        async with Worker(engine, windows[0].samples) as worker:
            before = time.monotonic()
            inside = [outcome.processing for outcome in await worker.serve(windows)]
            served.append([*inside, time.monotonic() - before - sum(inside)])
    count = len(windows)
    return {"windows": count, "bare": count / _usual(bare), "worker": count / _usual(served)}


def _usual(rounds: list[list[float]]) -> float:
    """Sum the lower quartile of each part of a round: other programs can only make a part slower."""
    return float(np.quantile(rounds, 0.25, axis=0).sum())
