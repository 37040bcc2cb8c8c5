"""Decides whether a window will be done within L_max, from the engine's measured speed.

The speed is a smoothed ratio of sums: seconds of processing over work done. The engine says what a window's work is:
a number that its cost is proportional to. A window is accepted when all jobs up to its end are done within L_max, at
that speed and with a margin for chance. When its turn comes, only its own work is uncertain. Then the margin is
smaller: just enough that the engine seldom works in vain.

The speed depends on the engine alone, never on what was accepted or refused. So there is no feedback, and nothing can
oscillate. In lasting overload the queue stays at the length that L_max allows. Each finished job makes room for about
one new job, and the engine is never idle. A slower engine shows within ten windows. A window that was accepted before
and is too late now is dropped when its turn comes, at no cost. If not even a lone window could be in time, one window
at a time is tried all the same. Only that shows when the engine is faster again.
"""

from __future__ import annotations

from dataclasses import dataclass

# Weight of the newest measurement in the speed. A lasting change shows within ten windows; one outlier fades in five.
_SMOOTHING = 0.2
# The same for the deviation from the expected time. It averages about forty windows, (2 - a) / a, because a few similar
# windows do not prove a steady engine.
_SMOOTHING_OF_DEVIATION = 0.05
# Margins in mean absolute deviations, as in TCP's timer (RFC 6298): an outlier weighs less in them than in standard
# deviations. In normal noise, three of them are 2.4 standard deviations, or 99 % of single windows. All windows of a
# sum are assumed to deviate together. On a shared machine slow windows follow each other (docs/performance.md), and
# only independent errors average out.
_TO_ACCEPT = 3.0
_TO_BEGIN = 1.0  # of the windows that begin with no more to spare, four of five are in time


@dataclass(frozen=True, slots=True)
class EngineSpeed:
    """Smoothed measurements of the engine, per job: seconds of processing, work, seconds of audio.

    `deviation`: mean absolute difference between a job's measured and expected processing, in seconds.
    """

    processing: float = 0.0
    work: float = 1.0
    audio: float = 1.0
    deviation: float = 0.0

    @property
    def rtf(self) -> float:
        """Real-time factor. A ratio of means, not a mean of ratios: right for sums of long and short windows."""
        return self.processing / self.audio

    def after(self, work: float, processing: float, audio: float) -> EngineSpeed:
        """Return the speed with one more job taken in."""
        error = abs(processing - self.expected(work))
        return EngineSpeed(
            self.processing + _SMOOTHING * (processing - self.processing),
            self.work + _SMOOTHING * (work - self.work),
            self.audio + _SMOOTHING * (audio - self.audio),
            self.deviation + _SMOOTHING_OF_DEVIATION * (error - self.deviation),
        )

    def expected(self, work: float) -> float:
        """Expected seconds for so much work."""
        return work * self.processing / self.work

    def at_most(self, work: float, deviations: float = _TO_ACCEPT) -> float:
        """Seconds that so much work takes at most, with a margin of so many mean deviations."""
        return work * (self.processing + deviations * self.deviation) / self.work


class AdmissionControl:
    """L_max in seconds, and the engine's speed. `speed` is replaced as a whole, so any thread may read it."""

    def __init__(self, max_latency: float, speed: EngineSpeed | None = None) -> None:
        self.max_latency = max_latency
        self.speed = speed or EngineSpeed()

    def measured(self, work: float, processing: float, audio: float) -> None:
        """Take one finished job; `processing` and `audio` in seconds."""
        self.speed = self.speed.after(work, processing, audio)

    def in_time(self, waited: float, work: float) -> bool:
        """Whether a job that has waited so many seconds, with so much work left up to its end, is done within L_max."""
        return waited + self.speed.at_most(work) <= self.max_latency

    def late(self, waited: float, work: float) -> bool:
        """Whether to drop a job at its turn. If even a new job would be late, it is tried until L_max has passed."""
        needed = self.speed.at_most(work, _TO_BEGIN)
        return waited + (needed if needed <= self.max_latency else 0.0) > self.max_latency
