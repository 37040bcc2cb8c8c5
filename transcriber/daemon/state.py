"""A daemon's state, and the time that it has left to stop."""

from __future__ import annotations

import asyncio
from enum import StrEnum

_LEAST_PUBLISH_SECS = 0.25  # even after the grace period: a working server needs milliseconds
_PUBLISH_SECS = 1.5  # the end of the grace period, reserved for publishing its results


class State(StrEnum):
    """The states of a daemon, in order. Only durable mode has `STANDING_BY`."""

    STARTING = "starting"
    STANDING_BY = "standing by"  # another daemon works on the same audio
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


class Grace:
    """The time for an orderly end: `seconds` from now, the last part of it for publishing."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._publish_until = self._loop.time() + seconds
        self._work_until = self._publish_until - min(_PUBLISH_SECS, seconds / 2)

    @property
    def left(self) -> float:
        """Seconds left for work."""
        return max(0.0, self._work_until - self._loop.time())

    @property
    def publishing_left(self) -> float:
        """Seconds left for publishing."""
        return max(_LEAST_PUBLISH_SECS, self._publish_until - self._loop.time())
