"""What an operator must hear of once: a producer's mistakes that cost no chunk, and so would go unseen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from transcriber.domain import languages
from transcriber.protocol import incoming

if TYPE_CHECKING:
    from transcriber.domain.timeline import Origin

log = logging.getLogger(__name__)

_REMEMBERED = 10_000  # streams, under 1 MB; forgetting only says it once more


class Notices:
    """Writes each of them to the log once: per stream, or per session."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()  # of which header of which stream

    def unknown_language(self, stream: str, value: str) -> None:
        """A stream's hint is no language that Whisper knows."""
        if not self._first(stream, incoming.LANGUAGE):
            return
        extra = {"stream": stream, "header": incoming.LANGUAGE, "value": value, "allowed": languages.ALLOWED}
        log.warning("language hint ignored", extra={**extra, "limited": True})

    def unknown_header(self, stream: str, name: str, meant: str | None) -> None:
        """A stream's chunks carry a header that nobody reads, which was perhaps meant for another."""
        if self._first(stream, ""):
            extra = {"stream": stream, "header": name, "meant": meant or "none that we know"}
            log.warning("unknown header ignored", extra={**extra, "limited": True})

    def _first(self, stream: str, header: str) -> bool:
        if (stream, header) in self._told:
            return False
        if len(self._told) >= _REMEMBERED:
            self._told.clear()
        self._told.add((stream, header))
        return True

    def trimmed(self, sessions: list[Origin]) -> None:
        """These sessions sent audio that was there already; takes them out of the list."""
        while sessions:
            origin = sessions.pop(0)
            extra = {"stream": origin.stream, "session": origin.session}
            log.warning("overlapping audio trimmed", extra={**extra, "limited": True})

    def unmixed(self, sessions: list[Origin]) -> None:
        """The channels of these sessions cancel each other; takes them out of the list."""
        while sessions:
            origin = sessions.pop(0)
            extra = {"stream": origin.stream, "session": origin.session}
            log.warning("channels in opposite phase: the louder one is heard alone", extra={**extra, "limited": True})
