"""Files in place of PCM: once a stream has begun one, what follows is the rest of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transcriber.domain import containers
from transcriber.domain.chunks import ChunkEvent
from transcriber.domain.errors import Rejection

if TYPE_CHECKING:
    from transcriber.domain.chunks import Chunk

_REMEMBERED = 1000  # as many as MAX_STREAMS is by default


class Foreign:
    """Which streams are sending something else than PCM, by the id that the chunks carry."""

    def __init__(self, patience: float) -> None:
        """`patience`: seconds without such a message after which a stream may begin with PCM."""
        self._patience = patience
        self._last: tuple[str, str | None] | None = None  # whose file ended with the chunk that is being refused
        self.files: dict[tuple[str, str | None], tuple[str, float]] = {}  # what it was, and when

    def begin(self, stream: str, session: str | None, detail: str, now: float) -> None:
        """A chunk was refused, since it is a file or a part of one that is not the last."""
        last, self._last = self._last, None
        if last == (stream, session):
            return
        self.files.pop((stream, session), None)
        self.files[stream, session] = detail, now
        if len(self.files) > _REMEMBERED:
            del self.files[next(iter(self.files))]

    def check(self, chunk: Chunk, now: float) -> None:
        """Raise `Rejection` for the rest of a file, whatever its headers say: until a pause, or `end`."""
        key = chunk.stream, chunk.session
        if (found := self.files.get(key)) is None:
            return
        detail, last = found
        end, rest = chunk.event is ChunkEvent.END, chunk.pcm and now - last < self._patience
        if end or (chunk.pcm and not rest):
            del self.files[key]
        if rest:
            self._last = key if end else None
            raise Rejection(containers.REASON, detail)

    @staticmethod
    def check_first(chunk: Chunk) -> None:
        """Raise `Rejection` when a session's first chunk is the beginning of a file, or text."""
        if chunk.pcm and (name := containers.name_of(chunk.pcm, wide=chunk.format.wide)) is not None:
            raise containers.rejection(name)
