"""What arrives, fed into the sessions and counted, whatever becomes of it then."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from transcriber.broker.live import Refused
from transcriber.domain.chunks import Chunk, Cursor, Skipped
from transcriber.domain.errors import Rejection
from transcriber.domain.timeline import GapReason
from transcriber.pipeline.notices import Notices

if TYPE_CHECKING:
    from transcriber.audio.sessions import Output, Sessions
    from transcriber.broker.live import Arrival
    from transcriber.domain.measurements import Tallies

    Take: TypeAlias = Callable[[Iterable[Output]], None]

log = logging.getLogger(__name__)

NO_STREAM = "invalid"  # what chunks are counted under whose subject names no stream


class Receiver:
    """Feeds sessions and hands on to `take` what they give out.

    `stored`: timeouts go by the messages' own time, so a chunk ends a session that was silent too long before it.
    `look` is called with the stream's name after each chunk that was accepted.
    """

    def __init__(
        self,
        sessions: Sessions,
        tallies: Tallies,
        take: Take,
        *,
        stored: bool,
        look: Callable[[str], object] | None = None,
    ) -> None:
        self._sessions = sessions
        self._tallies = tallies
        self._take = take
        self._stored = stored
        self._look = look
        self._notices = Notices()

    def receive(self, arrival: Arrival, now: float) -> None:
        """Take one message in whatever state it arrived; `now` is the time by which sessions time out, in seconds."""
        match arrival:
            case Chunk():
                self._chunk(arrival, now)
            case Skipped(chunk=chunk, chunks=chunks):
                self._tallies.chunks_received.add(chunk.stream, amount=chunks)
                self._tallies.chunks_dropped.add(chunk.stream, GapReason.LAG, chunks)
                try:
                    self._take(self._sessions.skip(arrival, now))
                except Rejection as rejection:
                    self._reject(chunk.stream, chunk.session, rejection, chunk.cursor, now)
            case Refused():
                self._tallies.chunks_received.add(arrival.stream or NO_STREAM)
                self._reject(arrival.stream, arrival.session, arrival.rejection, arrival.cursor, now)

    def tick(self, now: float) -> None:
        """Apply timeouts."""
        self._take(self._sessions.tick(now))
        self._tell()

    def end_all(self) -> None:
        """End every session: what is buffered becomes its last windows."""
        self._take(self._sessions.end_all())
        self._tell()

    def _chunk(self, chunk: Chunk, now: float) -> None:
        if self._stored:
            self._take(self._sessions.tick_stream(chunk.stream, now))
        self._tallies.chunks_received.add(chunk.stream)
        try:
            self._take(self._sessions.receive(chunk, now))
        except Rejection as rejection:
            self._reject(chunk.stream, chunk.session, rejection, chunk.cursor, now)
        else:
            if self._look is not None:
                self._look(chunk.stream)
        if chunk.unknown_language is not None:
            self._notices.unknown_language(chunk.stream, chunk.unknown_language)
        if chunk.unknown_header is not None:
            self._notices.unknown_header(chunk.stream, *chunk.unknown_header)
        if self._sessions.unmixed or self._sessions.trimmed:
            self._tell()

    def _tell(self) -> None:
        self._notices.unmixed(self._sessions.unmixed)
        self._notices.trimmed(self._sessions.trimmed)

    def _reject(
        self, stream: str | None, session: str | None, rejection: Rejection, cursor: Cursor | None, now: float
    ) -> None:
        self._tallies.chunks_dropped.add(stream or NO_STREAM, rejection.reason)
        extra = {"stream": stream, "reason": rejection.reason, "detail": rejection.detail, "limited": True}
        log.warning("chunk rejected", extra=extra)
        if stream is not None:
            self._take(self._sessions.reject(stream, session, rejection, cursor, now))
