"""Passes the pipelines' decisions on to metrics, the log, traces and the status page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from transcriber.domain.results import Transcript
from transcriber.domain.timeline import SAMPLE_RATE, Gap

if TYPE_CHECKING:
    from transcriber.domain.events import Suppressed
    from transcriber.domain.measurements import Tallies
    from transcriber.domain.results import Latency
    from transcriber.domain.timeline import Window
    from transcriber.pipeline.verdict import Verdict

log = logging.getLogger(__name__)


class Span(Protocol):
    """The trace of one window."""

    @property
    def traceparent(self) -> str | None: ...
    @property
    def ids(self) -> dict[str, str]: ...
    def end(self, outcome: str, *, failed: bool = False, **attributes: float) -> None: ...


class Observer(Protocol):
    """Takes traces and latencies."""

    def start(self, window: Window) -> Span: ...
    def record(self, stream: str, latency: Latency, traceparent: str | None = None) -> None: ...


class Listener(Protocol):
    """Called on the event loop, once for each decision. It must not block, and must not raise."""

    def on_verdict(self, verdict: Verdict, span: Span) -> None:
        """Take the verdict on a window; its span is still open."""
        ...

    def on_gap(self, gap: Gap) -> None:
        """Take a gap of audio that was in no window."""
        ...


class Counter:
    """Counts dropped windows by reason, and windows that were decoded more than once."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies

    def on_verdict(self, verdict: Verdict, span: Span) -> None:  # noqa: ARG002 - the protocol has it
        stream = verdict.window.origin.stream
        if verdict.passes > 1:
            self._tallies.decodes_repeated.add(stream)
        if isinstance(verdict.result, Gap):
            self._tallies.jobs_dropped.add(stream, verdict.result.reason)

    def on_gap(self, gap: Gap) -> None:
        """Do nothing: sessions count such audio by its fate."""


class Logger:
    """Logs each gap and each suppressed text, and each transcribed text at debug level."""

    def on_verdict(self, verdict: Verdict, span: Span) -> None:
        match verdict.result:
            case Gap() as gap:
                self._dropped(gap, {"detail": verdict.detail, **span.ids})
            case Transcript() as transcript:
                where = {"stream": transcript.origin.stream, "sequence": transcript.sequence, **span.ids}
                end_to_end = round(transcript.latency.end_to_end, 3)
                text = transcript.recognition.text
                log.debug("transcribed", extra={**where, "text": text, "end_to_end": end_to_end})
                for held in verdict.suppressed:
                    log.warning("text suppressed", extra={**where, "reason": held.reason, "text": held.text})

    def on_gap(self, gap: Gap) -> None:
        self._dropped(gap, {})

    @staticmethod
    def _dropped(gap: Gap, more: dict[str, str]) -> None:
        extra = {
            "stream": gap.origin.stream,
            "session": gap.origin.session,
            "start": gap.start / SAMPLE_RATE,
            "end": gap.end / SAMPLE_RATE,
            "reason": gap.reason.value,
            "limited": True,
            **more,
        }
        log.warning("audio dropped", extra=extra)


class Page:
    """Hands results, suppressed texts and gaps to the status page."""

    def __init__(self, show: Callable[[Transcript | Suppressed | Gap], object]) -> None:
        self._show = show

    def on_verdict(self, verdict: Verdict, span: Span) -> None:  # noqa: ARG002 - the protocol has it
        for entry in (verdict.result, *verdict.suppressed):
            self._show(entry)

    def on_gap(self, gap: Gap) -> None:
        self._show(gap)


class Tracer:
    """Ends the window's span with its outcome."""

    def on_verdict(self, verdict: Verdict, span: Span) -> None:
        match verdict.result:
            case Gap(reason=reason):
                span.end(reason, failed=True)
            case Transcript(latency=latency):
                queue, processing, end_to_end = latency.queue, latency.processing, latency.end_to_end
                span.end("transcribed", queue=queue, processing=processing, end_to_end=end_to_end)

    def on_gap(self, gap: Gap) -> None:
        """Do nothing: audio that was in no window has no span."""


class Listeners:
    """Several listeners as one. A tracer is added as the last, so that the others find the span open."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners: Sequence[Listener] = (*listeners, Tracer())

    def on_verdict(self, verdict: Verdict, span: Span) -> None:
        for listener in self._listeners:
            listener.on_verdict(verdict, span)

    def on_gap(self, gap: Gap) -> None:
        for listener in self._listeners:
            listener.on_gap(gap)
