"""What a daemon does at the moment, and how much time it has left to stop."""

from __future__ import annotations

import asyncio
from enum import StrEnum

_LEAST_PUBLISH_SECS = 0.25  # even when the grace period is over: a working server needs milliseconds
_PUBLISH_SECS = 1.5  # the end of the grace period, kept for publishing what it decided


class State(StrEnum):
    """In the order in which a daemon passes through them; standing by is for stored audio alone."""

    STARTING = "starting"
    STANDING_BY = "standing by"  # another daemon works on the same audio
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


class Grace:
    """The time for an orderly end, from now: `seconds` in all, the last of them for publishing."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._publish_until = self._loop.time() + seconds
        self._work_until = self._publish_until - min(_PUBLISH_SECS, seconds / 2)

    @property
    def left(self) -> float:
        """Seconds that are left for work."""
        return max(0.0, self._work_until - self._loop.time())

    @property
    def publishing_left(self) -> float:
        """Seconds that are left for publishing."""
        return max(_LEAST_PUBLISH_SECS, self._publish_until - self._loop.time())
