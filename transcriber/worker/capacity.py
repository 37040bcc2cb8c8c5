"""How many jobs fit into the latency budget, and how many workers so many streams need. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor

_CEILING = 10_000  # jobs, about 3 GB of five-second windows: no budget needs more, but an RTF near 0 would ask for it
_UTILISATION = 0.7  # share of the engine's time that a fleet plans with; `transcriber capacity` plans with the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Queue capacity and what it was derived from. Seconds; `rtf` is processing time over audio length."""

    jobs: int
    max_latency: float
    window: float
    rtf: float
    given: bool = False

    def __str__(self) -> str:
        """The derivation, for the one log line at start."""
        if self.given:
            return f"capacity {self.jobs} (TRANSCRIPTION_QUEUE_CAPACITY)"
        return (
            f"capacity {self.jobs} = max(1, floor(L_max / (D x RTF)))"
            f" = max(1, floor({self.max_latency:g} s / ({self.window:g} s x {self.rtf:.4f})))"
        )


def derive(max_latency: float, window: float, rtf: float) -> Capacity:
    """floor(L_max / (D x RTF)), at least 1: with that many jobs waiting or running, the last is done within L_max.

    The queue keeps this size. Whether a job is in time at the present speed is for admission control to decide.

    `max_latency` (L_max) and `window` (D) in seconds, `rtf` dimensionless, all positive.
    """
    return Capacity(
        jobs=min(_CEILING, max(1, floor(max_latency / (window * rtf)))), max_latency=max_latency, window=window, rtf=rtf
    )


def given(jobs: int, derived: Capacity) -> Capacity:
    """The capacity from the settings, in place of the derived one."""
    return replace(derived, jobs=jobs, given=True)


def carried(rtf: float) -> float:
    """How many streams of uninterrupted speech a member of a fleet says that it can carry; at least a tenth of one."""
    return max(0.1, _UTILISATION / rtf)


def streams(rtf: float, utilisation: float) -> int:
    """How many streams of uninterrupted speech one worker carries at a target utilisation in (0, 1]."""
    return floor(utilisation / rtf)


def workers(count: int, rtf: float, utilisation: float) -> int:
    """Workers needed for `count` streams of uninterrupted speech: N x RTF / target utilisation, rounded up."""
    return ceil(count * rtf / utilisation)
