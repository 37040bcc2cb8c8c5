"""Publishes partials: the text of windows that are still open, while somebody is speaking."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from transcriber.audio.segmenter import PRE_ROLL
from transcriber.audio.vad import FRAME
from transcriber.domain.results import Hypothesis, Transcript
from transcriber.pipeline.agreement import Agreement
from transcriber.pipeline.verdict import judge
from transcriber.protocol.outgoing import Message, encode_partial
from transcriber.worker.jobs import Job, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from transcriber.audio.sessions import Sessions
    from transcriber.broker.publisher import Publisher
    from transcriber.domain.measurements import Tallies
    from transcriber.domain.timeline import Window
    from transcriber.worker.queue import JobQueue

# The next pass is due when the window has grown by a quarter, if that is more than the interval. So all passes over a
# window of 15 s or more cost at most five times its final pass.
_GROWTH = 4
_FIRST = 0.6  # share of the interval after which a window's first pass is due


@dataclass(slots=True, kw_only=True)
class _Open:
    """One stream's open window: its identity, the length at which its next pass is due, and its text so far."""

    session: str
    sequence: int
    next_length: int
    published: bool = False  # whether a partial of this window was published
    agreement: Agreement = field(default_factory=Agreement)


class Interim:
    """Offers each open window to an idle worker when it has grown by `interval` samples, and publishes its text.

    An offer is made only while no window waits or runs: under load, partials are dropped first.
    """

    def __init__(  # noqa: PLR0913 - the parts that it connects
        self,
        sessions: Sessions,
        queue: JobQueue,
        publisher: Publisher,
        tallies: Tallies,
        *,
        interval: int,
        max_payload: Callable[[], int],
    ) -> None:
        self._sessions = sessions
        self._queue = queue
        self._publisher = publisher
        self._tallies = tallies
        self._interval = interval
        self._max_payload = max_payload
        self._open: dict[str, _Open] = {}

    def offer(self, stream: str) -> None:
        """Offer the stream's open window if its next pass is due. Call this after each of its chunks."""
        found = self._sessions.open_window(stream)
        if found is None:
            self._open.pop(stream, None)
            return
        session, sequence, length = found
        known = self._open.get(stream)
        if known is None or (known.session, known.sequence) != (session, sequence):
            # A window begins with its pre-roll. The first pass comes early, to show the first two words soon.
            self._forget()
            first = round(self._interval * _FIRST) + PRE_ROLL * FRAME
            known = self._open[stream] = _Open(session=session, sequence=sequence, next_length=first)
        if length < known.next_length or self._queue.depth or not self._publisher.connected:
            return
        window = self._sessions.peek(stream)
        # The resampler holds back some samples, so the window may be shorter than `length`.
        if window is not None and (seen := len(window.samples)) >= known.next_length:
            known.next_length = seen + max(self._interval, seen // _GROWTH)
            self._queue.offer_partial(
                Job(window=window, deliver=self._on_outcome, partial=True, first=not known.published)
            )

    def _forget(self) -> None:
        """Forget streams that fell silent inside a window: without chunks, `offer` is not called for them."""
        if len(self._open) > self._sessions.active:
            self._open = {stream: known for stream, known in self._open.items() if self._sessions.open_window(stream)}

    def _on_outcome(self, outcome: Outcome) -> None:
        window = outcome.window
        known = self._open.get(window.origin.stream)
        current = known is not None and (known.session, known.sequence) == (window.origin.session, window.sequence)
        if known is None or not current:
            return
        if outcome.recognition is None:  # it gave way to a window; try again with the next chunk
            known.next_length = 0
            return
        transcript = judge(outcome, now=time.monotonic()).result
        if not isinstance(transcript, Transcript) or not transcript.recognition.text:
            return
        known.published = True
        text, stable = known.agreement.add(transcript.recognition.text)
        hypothesis = Hypothesis(transcript, text, stable)
        self._publisher.put(partial(self._encode, window, hypothesis), essential=False)

    def _encode(self, window: Window, hypothesis: Hypothesis) -> list[Message]:
        self._tallies.partials_published.add(window.origin.stream)
        traceparent = window.traceparents[0] if window.traceparents else None
        return [encode_partial(hypothesis, traceparent, self._max_payload())]
