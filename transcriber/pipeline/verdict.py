"""Decides a window's fate: its text, or a gap. Only this module decides it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transcriber.domain.events import Suppressed
from transcriber.domain.results import Latency, Transcript
from transcriber.domain.timeline import Gap, GapReason, Window

if TYPE_CHECKING:
    from transcriber.worker.jobs import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The fate of one window. `detail` explains a gap, for the log.

    `suppressed`: texts that the guards held back. `passes`: how often the engine decoded the window.
    """

    window: Window
    result: Transcript | Gap
    suppressed: tuple[Suppressed, ...] = ()
    passes: int = 0
    detail: str = ""


def judge(outcome: Outcome, *, now: float, max_latency: float = math.inf) -> Verdict:
    """Turn the worker's outcome into the window's fate.

    `now` is the moment of publishing, in seconds on the clock of `outcome.enqueued`. Text that is older than
    `max_latency` seconds by then becomes a gap: late text is never published.
    """
    window, recognition = outcome.window, outcome.recognition
    if recognition is None or outcome.reason is not None:
        return gap(window, outcome.reason or GapReason.ENGINE_ERROR, outcome.detail, passes=outcome.passes)
    end_to_end = now - outcome.enqueued
    if end_to_end > max_latency:
        return gap(window, GapReason.DEADLINE, f"finished after {end_to_end:.1f} s", passes=outcome.passes)
    latency = Latency(outcome.queued, outcome.processing, end_to_end)
    return Verdict(
        window=window,
        result=Transcript(
            origin=window.origin,
            sequence=window.sequence,
            start=window.start,
            end=window.end,
            recognition=recognition,
            latency=latency,
            closed=window.closed,
        ),
        suppressed=tuple(
            Suppressed(
                origin=window.origin,
                start=window.start + held.segment.start,
                end=window.start + held.segment.end,
                reason=held.reason,
                text=held.segment.text,
            )
            for held in recognition.held_back
        ),
        passes=outcome.passes,
    )


def gap(window: Window, reason: GapReason, detail: str = "", *, passes: int = 0) -> Verdict:
    """Return the verdict on a window that is not transcribed."""
    result = Gap(origin=window.origin, start=window.start, end=window.end, reason=reason, cursor=window.cursor)
    return Verdict(window=window, result=result, passes=passes, detail=detail)
