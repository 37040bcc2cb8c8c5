"""Decides between producers that share a stream: the newer one wins, the older one is rejected while both send."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transcriber.domain.errors import Rejection

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transcriber.audio.session import Session
    from transcriber.domain.chunks import Chunk

_REMEMBERED = 16  # superseded sessions of one stream; more ids than that are not several producers
_STREAMS = 1000  # the default of MAX_STREAMS; a forgotten stream's older producer is heard again


class Rivals:
    """Sessions that were superseded without an end, by stream and by their chunks' session id."""

    def __init__(self, patience: float) -> None:
        """`patience`: seconds without a message after which a session has fallen silent."""
        self._patience = patience
        self._seen: dict[str, dict[str, float]] = {}  # when each last sent, the newest last

    def check(self, chunk: Chunk, current: Session, now: float) -> None:
        """Raise `Rejection` if the chunk belongs to a superseded session and both sessions still send."""
        seen = self._seen.get(chunk.stream)
        if seen is None or chunk.session not in seen:
            return
        last = seen.pop(chunk.session)
        if max(now - last, now - current.last_message) >= self._patience:
            return
        seen[chunk.session] = now
        raise Rejection(
            "superseded",
            f"Audio-Session={chunk.session!r}: {current.requested_id!r} began later on this stream, "
            "which takes one producer",
        )

    def supersede(self, old: Session) -> None:
        """Note that a chunk of another session has superseded this one."""
        if old.requested_id is not None:
            self._note(old.origin.stream, old.requested_id, old.last_message)

    def resume(self, stream: str, older: Iterable[str], now: float) -> None:
        """Take over the superseded sessions that an earlier daemon knew."""
        for session in older:
            self._note(stream, session, now)

    def older(self, stream: str, now: float) -> tuple[str, ...]:
        """The stream's superseded sessions that still send."""
        seen = self._seen.get(stream, {})
        return tuple(session for session, last in seen.items() if now - last < self._patience)

    def _note(self, stream: str, session: str, now: float) -> None:
        seen = self._seen.setdefault(stream, {})
        seen.pop(session, None)
        seen[session] = now
        if len(seen) > _REMEMBERED:
            del seen[next(iter(seen))]
        if len(self._seen) > _STREAMS:
            del self._seen[next(iter(self._seen))]
