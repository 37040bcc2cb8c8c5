"""A window on its way through the worker, what is decoded in one pass, and what comes back."""

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
    """The result of a job: a recognition, or the reason why there is none. Times in seconds."""

    window: Window
    recognition: Recognition | None
    reason: GapReason | None  # None without a recognition: a partial that a window preempted
    detail: str
    enqueued: float  # monotonic
    queued: float
    processing: float
    passes: int = 1  # more than one: the text was in doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A window on its way through the worker. `deliver` is called with the outcome, on the event loop.

    A partial is made from a window that is still open. It is best effort and may be dropped. `first`: the window's
    first partial.
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
        """The outcome of a job that the engine never got, dropped `queued` seconds after it was put."""
        return Outcome(
            window=self.window,
            recognition=None,
            reason=reason,
            detail=detail,
            enqueued=self.enqueued,
            queued=queued,
            processing=0.0,
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs for one pass: windows, or partials. `beam`: whether there is time for beam search."""

    jobs: list[Job]
    beam: bool = False
