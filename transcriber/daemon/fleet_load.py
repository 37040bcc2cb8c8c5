"""Measures how many streams a partition has at work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transcriber.domain.timeline import SAMPLE_RATE

if TYPE_CHECKING:
    from transcriber.audio.sessions import Sessions
    from transcriber.domain.timeline import Origin

_SMOOTHING = 0.2  # of the newest measurement, one a second: a lasting change shows within ten


class Load:
    """One partition's load: its streams with audio, or more if they send faster than real time."""

    def __init__(self, sessions: Sessions, now: float) -> None:
        self._sessions = sessions
        self._heads: dict[Origin, int] = {}  # by session: up to where its audio was heard
        self._at = now
        self._rate = 0.0

    def measured(self, now: float) -> float:
        """Return the load at `now`, in seconds on the monotonic clock."""
        if (passed := now - self._at) >= 0.5:  # noqa: PLR2004 - half the time between two renewals
            heads = {one.origin: one.audio.head for one in self._sessions.current.values()}
            heard = sum(head - self._heads.get(one, head) for one, head in heads.items())
            self._rate += _SMOOTHING * (heard / SAMPLE_RATE / passed - self._rate)
            self._heads, self._at = heads, now
        return max(float(sum(not session.idle for session in self._sessions.current.values())), self._rate)
