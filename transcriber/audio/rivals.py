"""Producers that share a stream: the newer one is heard, the older one is told so until one of them falls silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transcriber.domain.errors import Rejection

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transcriber.audio.session import Session
    from transcriber.domain.chunks import Chunk

_REMEMBERED = 16  # superseded sessions of one stream: what invents more ids than that is no set of producers
_STREAMS = 1000  # as many as MAX_STREAMS is by default; forgetting one lets its older producer be heard once more


class Rivals:
    """Sessions that did not end before the next one began, by stream and by the id that their chunks carry."""

    def __init__(self, patience: float) -> None:
        """`patience`: seconds without a message after which a session has fallen silent."""
        self._patience = patience
        self._seen: dict[str, dict[str, float]] = {}  # when each was last heard of, the newest last

    def check(self, chunk: Chunk, current: Session, now: float) -> None:
        """Raise `Rejection` when the chunk is a superseded session's and both go on."""
        seen = self._seen.get(chunk.stream)
        if seen is None or chunk.session not in seen:
            return
        last = seen.pop(chunk.session)
        if max(now - last, now - current.last_message) >= self._patience:
            return
        seen[chunk.session] = now
        raise Rejection(
            "superseded",
            f"Audio-Session={chunk.session!r}: {current.asked!r} began later on this stream, which takes one producer",
        )

    def supersede(self, old: Session) -> None:
        """A chunk of another session has come."""
        if old.asked is not None:
            self._note(old.origin.stream, old.asked, old.last_message)

    def resume(self, stream: str, older: Iterable[str], now: float) -> None:
        """Go on with what another daemon knew."""
        for session in older:
            self._note(stream, session, now)

    def older(self, stream: str, now: float) -> tuple[str, ...]:
        """The stream's superseded sessions that have not fallen silent."""
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
