"""How far the recordings are: each one's parts, and all that were transcribed."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from transcriber.domain.timeline import GapReason
from transcriber.gateway.dialects.recording import RecordingText, unheard

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from transcriber.domain.errors import RequestError
    from transcriber.gateway.rest.reading import Part
    from transcriber.gateway.routes import Call

log = logging.getLogger(__name__)

T = TypeVar("T")

_REASONS = {413: "too_large", 500: "engine_error", 503: "unavailable", 504: "timeout"}


@dataclass(slots=True, kw_only=True)
class Progress:
    """One recording's. `headers`: of all its parts. `patience`: seconds that it may go on without an answer."""

    call: Call
    headers: Mapping[str, str]
    patience: float
    model: str = ""  # the client's word for it
    begin: float = field(default_factory=time.monotonic)
    processing: float = 0.0  # seconds of the workers' time
    error: RequestError | None = None  # why the last part was lost
    _waits: set[asyncio.Timeout] = field(default_factory=set)  # of the parts that wait for their answers
    _answered: bool = False
    _deadline: float = 0.0

    def __post_init__(self) -> None:
        self._deadline = self.begin + self.patience

    @property
    def left(self) -> float:
        """Seconds for which it may go on without an answer."""
        return self._deadline - time.monotonic()

    @property
    def all_lost(self) -> RequestError | None:
        """Why nothing was transcribed; None if something was, or there was nothing."""
        return None if self._answered else self.error

    def charge(self, part: Part) -> None:
        """Take a part off the key's allowance. Raises `Problem` 429 for the first one, if that is used up."""
        if part.start:
            self.call.caller.sent(part.seconds)
        else:
            self.call.caller.charge(part.seconds)

    def heard(self, text: RecordingText) -> None:
        """Note that a part is transcribed, which gives the others more time."""
        self._answered = True
        self.processing += text.processing
        self._deadline = time.monotonic() + self.patience

    async def until_hurried(self, asking: Coroutine[Any, Any, T]) -> T:
        """Wait for an answer. Raises `TimeoutError` when `hurry` is called."""
        async with asyncio.timeout(None) as wait:
            self._waits.add(wait)
            try:
                return await asking
            finally:
                self._waits.discard(wait)

    def hurry(self) -> None:
        """End every wait for an answer now: it may never come."""
        for wait in self._waits:
            wait.reschedule(asyncio.get_running_loop().time())

    def lost(self, part: Part, error: RequestError) -> RecordingText:
        """Note that a part is given up."""
        self.error = error
        extra = {"limited": True}
        log.warning("%.1f s of a recording were not transcribed: %s", part.seconds, error, extra=extra)
        return unheard(part.start, part.end, _reason(error))


class Tally:
    """Counts the recordings that were transcribed since the start. Times in seconds."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self.recordings = 0
        self.processing = 0.0
        self.latency = 0.0

    def add(self, progress: Progress) -> None:
        """Count one that is complete."""
        self.recordings += 1
        self.processing += progress.processing
        self.latency += time.monotonic() - progress.begin

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begin


def _reason(error: RequestError) -> str:
    """The daemon's reason for a gap, where it tells one; else a word for the code."""
    told = error.detail.partition(":")[0]
    if told in set(GapReason):
        return told
    if "queue is full" in error.detail:
        return GapReason.QUEUE_FULL
    return _REASONS.get(error.code, "refused")
