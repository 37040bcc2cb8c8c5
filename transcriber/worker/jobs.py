"""A window on its way through the worker, and what comes back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from transcriber.domain.results import Recognition
    from transcriber.domain.timeline import GapReason, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a window: a recognition, or the reason why there is none. Seconds."""

    window: Window
    recognition: Recognition | None
    reason: GapReason | None  # None without a recognition: a partial that gave way
    detail: str
    enqueued: float  # monotonic
    queued: float
    processing: float
    passes: int = 1  # more: decoded again, as the text was in doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A window on its way through the worker; `deliver` is called on the event loop with what became of it.

    A partial is a look at a window that is still open: nobody misses it. `first`: nobody has looked at it before.
    """

    window: Window
    deliver: Callable[[Outcome], None]
    enqueued: float = field(default_factory=time.monotonic)
    partial: bool = False
    first: bool = False

    @property
    def stream(self) -> str:
        return self.window.origin.stream

    @property
    def samples(self) -> int:
        return self.window.end - self.window.start

    def dropped(self, reason: GapReason, detail: str, queued: float = 0.0) -> Outcome:
        """What is delivered in place of a result when the engine never got the job, `queued` seconds after its put."""
        return Outcome(
            window=self.window,
            recognition=None,
            reason=reason,
            detail=detail,
            enqueued=self.enqueued,
            queued=queued,
            processing=0.0,
        )
