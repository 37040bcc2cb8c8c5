"""What a session's windows carry besides samples: origin, number, language, arrival times and traces."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from transcriber.audio.timeline import Arrivals, Traces
from transcriber.domain.chunks import DEFAULTS
from transcriber.domain.timeline import UNGUIDED, Guidance, Origin, Window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from transcriber.audio.segmenter import Span
    from transcriber.domain.chunks import Chunk, Preferences


class WindowMetadata:
    """Collects it from the chunks. Attributes: `origin`, `sequence` (of the next window), `traces`, `preferences`."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.sequence = 0
        self.traces = Traces()
        self.preferences = DEFAULTS
        self._heard: Preferences | None = None  # of the last chunk that had some; equal headers give the same object
        self._language: str | None = None
        self._guidance = UNGUIDED
        self._arrivals = Arrivals()

    def hear(self, chunk: Chunk) -> bool:
        """Take language, tenant and preferences from any chunk, with audio or without.

        Returns whether the preferences may have changed.
        """
        if chunk.language is not None:
            self._language = chunk.language
        if chunk.tenant is not None and chunk.tenant != self.origin.tenant:
            self.origin = replace(self.origin, tenant=chunk.tenant)
        if chunk.preferences is None or chunk.preferences is self._heard:
            return False
        self._heard, self.preferences = chunk.preferences, chunk.preferences.over(self.preferences)
        self._guidance = Guidance(self.preferences.prompt, bool(self.preferences.translate))
        return True

    def mark(self, chunk: Chunk, position: int) -> None:
        """Note that the chunk's audio begins at `position`."""
        self._arrivals.add(position, chunk.arrived)
        if chunk.traceparent is not None:
            self.traces.add(position, chunk.traceparent)

    def window(self, span: Span, samples: NDArray[np.float32], head: int) -> Window:
        """Make the window for a span of speech. The audio received so far ends at `head`."""
        return Window(
            origin=self.origin,
            sequence=self.sequence,
            start=span.start,
            end=span.end,
            samples=samples,
            voiced=span.voiced,
            closed=span.closed,
            language=self._language,
            guidance=self._guidance,
            traceparents=self.traces.overlapping(span.start, span.end, head),
            arrived=self._arrivals.of(span.start),
        )

    def forget(self, settled: int) -> None:
        """Forget marks that no window can need: none will begin before `settled`."""
        self.traces.forget(settled)
        self._arrivals.forget(settled)
