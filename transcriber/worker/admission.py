"""Whether a window will be done within L_max: how fast the engine is, and what that means for those that wait.

The control law. The engine's speed is a smoothed ratio of sums: seconds of processing over work done, where the work of
a window is what the engine says that its cost is proportional to. A window is accepted when everything that is served
up to its end is done within L_max at that speed and with a margin for chance. When its turn comes, only its own work is
left to foresee, and it has been promised: the margin is just enough for the engine to work in vain seldom.

The speed depends on the engine alone, never on what was accepted or refused, so nothing feeds back and nothing can
swing. In lasting overload the queue stands at the length that L_max allows, every finished job makes room for about one
new one, and the engine never idles. When the engine slows down, that is known within ten windows; what was accepted
before and cannot be in time any more is dropped when its turn comes, at no cost. While not even a window alone could be
in time, one at a time is tried all the same: only that tells when it is over.
"""

from __future__ import annotations

from dataclasses import dataclass

# Weight of the newest measurement in the speed: a lasting change shows within ten windows, one outlier fades in five.
_SMOOTHING = 0.2
# The same in how far windows stray from what was foreseen. It is known from about forty of them, (2 - a) / a, as a few
# windows alike must not pass for an even engine.
_SMOOTHING_OF_DEVIATION = 0.05
# Margins in mean absolute deviations, as in TCP's timer (RFC 6298), because one odd window counts less in them than in
# standard ones. Three are 2.4 of these in normal noise: 99 % of single windows. All windows of a sum are taken to stray
# together: on a machine that others share, one window after another is slow (the first autocorrelation of their speed
# was 0.7 there), and only independent ones would make up for each other.
_TO_ACCEPT = 3.0
_TO_BEGIN = 1.0  # four of five windows that begin with no more to spare are in time


@dataclass(frozen=True, slots=True)
class EngineSpeed:
    """Smoothed measurements of the engine, per job: seconds of processing, work, seconds of audio.

    `deviation`: of one job's processing from what was foreseen for it, the mean of absolute values in seconds.
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
        """The pace when one more job is done."""
        error = abs(processing - self.expected(work))
        return EngineSpeed(
            self.processing + _SMOOTHING * (processing - self.processing),
            self.work + _SMOOTHING * (work - self.work),
            self.audio + _SMOOTHING * (audio - self.audio),
            self.deviation + _SMOOTHING_OF_DEVIATION * (error - self.deviation),
        )

    def expected(self, work: float) -> float:
        """Seconds that so much work takes."""
        return work * self.processing / self.work

    def at_most(self, work: float, deviations: float = _TO_ACCEPT) -> float:
        """Seconds that so much work takes at most, as far as that can be known."""
        return work * (self.processing + deviations * self.deviation) / self.work


class AdmissionControl:
    """L_max in seconds, and the pace that tells whether it can be kept. Pace is replaced whole: any thread may read."""

    def __init__(self, max_latency: float, pace: EngineSpeed | None = None) -> None:
        self.max_latency = max_latency
        self.pace = pace or EngineSpeed()

    def measured(self, work: float, processing: float, audio: float) -> None:
        """Take one finished job; `processing` and `audio` in seconds."""
        self.pace = self.pace.after(work, processing, audio)

    def in_time(self, waited: float, work: float) -> bool:
        """Whether a job that waited so long (seconds) is done within L_max when so much work ends with it."""
        return waited + self.pace.at_most(work) <= self.max_latency

    def late(self, waited: float, work: float) -> bool:
        """Whether a job is to be dropped when its turn comes. If none could be in time, it is tried if it still can."""
        needed = self.pace.at_most(work, _TO_BEGIN)
        return waited + (needed if needed <= self.max_latency else 0.0) > self.max_latency
