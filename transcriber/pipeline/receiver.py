"""Feeds arriving messages into the sessions, and counts them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from transcriber.domain.chunks import Chunk, Cursor, DroppedChunk, MalformedMessage, Moved
from transcriber.domain.errors import Rejection
from transcriber.domain.events import Rejected
from transcriber.domain.timeline import GapReason
from transcriber.pipeline.producer_warnings import ProducerWarnings
from transcriber.protocol.headers import TASK

if TYPE_CHECKING:
    from transcriber.audio.sessions import SessionOutput, Sessions
    from transcriber.domain.chunks import Arrival
    from transcriber.domain.measurements import Tallies

    Take: TypeAlias = Callable[[Iterable[SessionOutput]], None]

log = logging.getLogger(__name__)

NO_STREAM = "invalid"  # chunks whose subject names no stream are counted under this


class Receiver:
    """Feeds sessions and passes their outputs to `take`.

    `stored`: timeouts use the messages' own time, so a chunk first ends a session that was silent too long before it.
    `on_chunk` is called with the stream's name after each accepted chunk. `multilingual` says whether the model in use
    can translate.
    """

    def __init__(  # noqa: PLR0913 - the parts that it connects
        self,
        sessions: Sessions,
        tallies: Tallies,
        take: Take,
        *,
        stored: bool,
        on_chunk: Callable[[str], object] | None = None,
        multilingual: Callable[[], bool] = lambda: True,
    ) -> None:
        self._sessions = sessions
        self._tallies = tallies
        self._take = take
        self._stored = stored
        self._on_chunk = on_chunk
        self._multilingual = multilingual
        self._warnings = ProducerWarnings()

    def receive(self, arrival: Arrival, now: float) -> None:
        """Take one message, good or bad. Sessions time out by `now`, in seconds."""
        match arrival:
            case Chunk():
                self._chunk(arrival, now)
            case DroppedChunk(chunk=chunk, chunks=chunks):
                self._tallies.chunks_received.add(chunk.stream, amount=chunks)
                self._tallies.chunks_dropped.add(chunk.stream, GapReason.LAG, chunks)
                try:
                    self._take(self._sessions.skip(arrival, now))
                except Rejection as rejection:
                    self._reject(chunk.stream, chunk.session, rejection, chunk.cursor, now)
            case Moved(detail=detail, cursor=cursor):
                self._take(self._sessions.replaced(detail, cursor))
            case MalformedMessage():
                self._tallies.chunks_received.add(arrival.stream or NO_STREAM)
                self._reject(arrival.stream, arrival.session, arrival.rejection, arrival.cursor, now)

    def tick(self, now: float) -> None:
        """Apply timeouts."""
        self._take(self._sessions.tick(now))
        self._warn()

    def flush_all(self) -> None:
        """Close every open window, and go on."""
        self._take(self._sessions.flush_all())

    def end_all(self) -> None:
        """End every session; buffered audio becomes its last windows."""
        self._take(self._sessions.end_all())
        self._warn()

    def _chunk(self, chunk: Chunk, now: float) -> None:
        if self._stored:
            self._take(self._sessions.tick_stream(chunk.stream, now))
        self._tallies.chunks_received.add(chunk.stream)
        try:
            self._take(self._sessions.receive(chunk, now))
        except Rejection as rejection:
            self._reject(chunk.stream, chunk.session, rejection, chunk.cursor, now)
        else:
            if self._on_chunk is not None:
                self._on_chunk(chunk.stream)
        if self._warnings.about(chunk, self._multilingual):
            detail = f"{TASK}=translate: the model knows English alone, so it transcribes"
            self._take(
                [
                    Rejected(
                        stream=chunk.stream, session=chunk.session, reason="task", detail=detail, cursor=chunk.cursor
                    )
                ]
            )
        if self._sessions.unmixed or self._sessions.trimmed:
            self._warn()

    def _warn(self) -> None:
        self._warnings.unmixed(self._sessions.unmixed)
        self._warnings.trimmed(self._sessions.trimmed)

    def _reject(
        self, stream: str | None, session: str | None, rejection: Rejection, cursor: Cursor | None, now: float
    ) -> None:
        self._tallies.chunks_dropped.add(stream or NO_STREAM, rejection.reason)
        extra = {"stream": stream, "reason": rejection.reason, "detail": rejection.detail, "limited": True}
        log.warning("chunk rejected", extra=extra)
        if stream is not None:
            self._take(self._sessions.reject(stream, session, rejection, cursor, now))
