"""Warns once about a producer's mistakes that cost no chunk, which would otherwise go unseen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from transcriber.domain import languages
from transcriber.protocol import incoming
from transcriber.protocol.headers import TASK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from transcriber.domain.chunks import Chunk, IgnoredHeader
    from transcriber.domain.timeline import Origin

log = logging.getLogger(__name__)

_REMEMBERED = 10_000  # streams, under 1 MB; after clearing, a warning may be repeated once


class ProducerWarnings:
    """Logs each warning once per stream, or once per session."""

    def __init__(self) -> None:
        self._warned: set[tuple[str, str]] = set()  # stream and header

    def about(self, chunk: Chunk, multilingual: Callable[[], bool]) -> bool:
        """Warn of what the chunk's headers ask for in vain. Returns whether it is a translation, the first time."""
        if chunk.unknown_language is not None:
            self.unknown_language(chunk.stream, chunk.unknown_language)
        if chunk.unknown_header is not None:
            self.unknown_header(chunk.stream, *chunk.unknown_header)
        if (wanted := chunk.preferences) is None:
            return False
        if wanted.ignored:
            self.ignored(chunk.stream, wanted.ignored)
        return bool(wanted.translate) and not multilingual() and self.untranslated(chunk.stream)

    def unknown_language(self, stream: str, value: str) -> None:
        """Warn that a stream's language hint is not a language that Whisper knows."""
        if not self._first(stream, incoming.LANGUAGE):
            return
        extra = {"stream": stream, "header": incoming.LANGUAGE, "value": value, "allowed": languages.ALLOWED}
        log.warning("language hint ignored", extra={**extra, "limited": True})

    def unknown_header(self, stream: str, name: str, meant: str | None) -> None:
        """Warn that a stream's chunks carry an unknown header; `meant` is the known one that it resembles."""
        if self._first(stream, ""):
            extra = {"stream": stream, "header": name, "meant": meant or "none that we know"}
            log.warning("unknown header ignored", extra={**extra, "limited": True})

    def ignored(self, stream: str, headers: Iterable[IgnoredHeader]) -> None:
        """Warn that headers of a stream's chunks have values that are not allowed."""
        for header, value, allowed in headers:
            if self._first(stream, header):
                extra = {"stream": stream, "header": header, "value": value, "allowed": allowed}
                log.warning("header ignored", extra={**extra, "limited": True})

    def untranslated(self, stream: str) -> bool:
        """Warn that the model cannot translate a stream. Returns whether this is the first time."""
        first = self._first(stream, f"{TASK}=translate")
        if first:
            log.warning("not translated: the model knows English alone", extra={"stream": stream, "limited": True})
        return first

    def _first(self, stream: str, header: str) -> bool:
        if (stream, header) in self._warned:
            return False
        if len(self._warned) >= _REMEMBERED:
            self._warned.clear()
        self._warned.add((stream, header))
        return True

    def trimmed(self, sessions: list[Origin]) -> None:
        """Warn that these sessions sent audio twice; empties the list."""
        while sessions:
            origin = sessions.pop(0)
            extra = {"stream": origin.stream, "session": origin.session}
            log.warning("overlapping audio trimmed", extra={**extra, "limited": True})

    def unmixed(self, sessions: list[Origin]) -> None:
        """Warn that the channels of these sessions cancel each other; empties the list."""
        while sessions:
            origin = sessions.pop(0)
            extra = {"stream": origin.stream, "session": origin.session}
            log.warning(
                "channels in opposite phase: only the louder one is transcribed", extra={**extra, "limited": True}
            )
