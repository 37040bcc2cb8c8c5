"""Whether a window will be done within L_max: how fast the engine is, and what that means for those that wait.

The control law. The engine's speed is a smoothed ratio of sums: seconds of processing over work done, where the work of
a window is what the engine says that its cost is proportional to. A window is accepted when everything that is served
up to its end is done within L_max at that speed and with a margin for chance; it is asked again when its turn comes.

The speed depends on the engine alone, never on what was accepted or refused, so nothing feeds back and nothing can
swing. In lasting overload the queue stands at the length that L_max allows, every finished job makes room for about one
new one, and the engine never idles. When the engine slows down, that is known within ten windows; what was accepted
before and cannot be in time any more is dropped when its turn comes, at no cost. While not even a window alone could be
in time, one at a time is tried all the same: only that tells when it is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

_SMOOTHING = (
    0.2  # weight of the newest measurement: a lasting change shows within ten windows, one outlier fades in five
)
# Independent measurements that carry as much weight as the smoothed one: the sum of squared weights is a / (2 - a).
_EFFECTIVE = (2 - _SMOOTHING) / _SMOOTHING
# Standard deviations. 1.64 would keep 95 % of promises; but in lasting overload every window is accepted with nothing
# to spare, so that is the share of all. Three keep 99.9 %, and cost queue length only: the engine is busy either way.
_CERTAINTY = 3.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Smoothed measurements of the engine, per job: seconds of processing, work, seconds of audio.

    `variance`, in s^2, is that of one job's processing about what was predicted for it.
    """

    processing: float = 0.0
    work: float = 1.0
    audio: float = 1.0
    variance: float = 0.0

    @property
    def rtf(self) -> float:
        """Real-time factor. A ratio of means, not a mean of ratios: right for sums of long and short windows."""
        return self.processing / self.audio

    def after(self, work: float, processing: float, audio: float) -> Pace:
        """The pace when one more job is done."""
        error = processing - self.expected(work)
        return Pace(
            self.processing + _SMOOTHING * (processing - self.processing),
            self.work + _SMOOTHING * (work - self.work),
            self.audio + _SMOOTHING * (audio - self.audio),
            self.variance + _SMOOTHING * (error * error - self.variance),
        )

    def expected(self, work: float) -> float:
        """Seconds that so much work takes."""
        return work * self.processing / self.work

    def at_most(self, work: float) -> float:
        """Seconds that so much work takes at most.

        n jobs stray by sigma x sqrt(n) around n times the mean, and the mean is known to sigma / sqrt(_EFFECTIVE).
        """
        jobs = work / self.work
        return self.expected(work) + _CERTAINTY * sqrt(self.variance * (jobs + jobs * jobs / _EFFECTIVE))


class Promise:
    """L_max in seconds, and the pace that tells whether it can be kept. Pace is replaced whole: any thread may read."""

    def __init__(self, max_latency: float, pace: Pace | None = None) -> None:
        self.max_latency = max_latency
        self.pace = pace or Pace()

    def measured(self, work: float, processing: float, audio: float) -> None:
        """Take one finished job; `processing` and `audio` in seconds."""
        self.pace = self.pace.after(work, processing, audio)

    def in_time(self, waited: float, work: float) -> bool:
        """Whether a job that waited so long (seconds) is done within L_max when so much work ends with it."""
        return waited + self.pace.at_most(work) <= self.max_latency

    def late(self, waited: float, work: float) -> bool:
        """Whether a job is to be dropped when its turn comes. If none could be in time, it is tried if it still can."""
        if self.in_time(0.0, work):
            return not self.in_time(waited, work)
        return waited > self.max_latency
