"""Rejects files that are sent in place of PCM: the first chunk of one, and the chunks that continue it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transcriber.domain import containers
from transcriber.domain.chunks import ChunkEvent
from transcriber.domain.errors import Rejection

if TYPE_CHECKING:
    from transcriber.domain.chunks import Chunk

_REMEMBERED = 1000  # as many as MAX_STREAMS is by default


class ForeignFiles:
    """Knows which streams send a file, by stream and by the session id of their chunks."""

    def __init__(self, patience: float) -> None:
        """`patience`: seconds without a part of the file, after which the stream may send PCM again."""
        self._patience = patience
        self._last: tuple[str, str | None] | None = None  # its file ended with the chunk that is being refused
        self.files: dict[tuple[str, str | None], tuple[str, float]] = {}  # rejection's detail, and the last part's time

    def begin(self, stream: str, session: str | None, detail: str, now: float) -> None:
        """Note that a chunk was refused because it is a file, or a part of one other than the last."""
        last, self._last = self._last, None
        if last == (stream, session):
            return
        self.files.pop((stream, session), None)
        self.files[stream, session] = detail, now
        if len(self.files) > _REMEMBERED:
            del self.files[next(iter(self.files))]

    def check(self, chunk: Chunk, now: float) -> None:
        """Raise `Rejection` for the rest of a file, up to a pause or `end`, whatever the chunk's headers say."""
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
        """Raise `Rejection` if a session's first chunk begins a file, or is text."""
        if chunk.pcm and (name := containers.name_of(chunk.pcm, wide=chunk.format.wide)) is not None:
            raise containers.rejection(name)
