"""A bucket that fills at a steady rate, and from which is taken. Pure: the caller brings the time."""

from __future__ import annotations

import math


class Bucket:
    """Holds up to `size`, fills by `rate` a second. Infinite ones never run out."""

    __slots__ = ("_at", "_left", "rate", "size")

    def __init__(self, rate: float, size: float) -> None:
        self.rate = rate
        self.size = size
        self._left = size
        self._at = -math.inf

    def _fill(self, now: float) -> None:
        if self._at > -math.inf:
            self._left = min(self.size, self._left + (now - self._at) * self.rate)
        self._at = now

    def left(self, now: float) -> float:
        """What is in it; below 0 when more was taken than there was."""
        if self.size < math.inf:
            self._fill(now)
        return self._left

    def take(self, amount: float, now: float) -> None:
        """Take, even if that leaves a debt."""
        if self.size < math.inf:
            self._fill(now)
            self._left -= amount

    def wait(self, amount: float, now: float) -> float:
        """Seconds until there is so much in it; 0 when there is now."""
        if self.size == math.inf:
            return 0.0
        missing = min(amount, self.size) - self.left(now)
        return max(0.0, missing / self.rate) if missing > 0 else 0.0
