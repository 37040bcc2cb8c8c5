"""Tells when windows of speech open and close, for a session whose producer asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transcriber.domain.events import Speech
from transcriber.domain.timeline import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from transcriber.audio.stream import TimelineItem
    from transcriber.domain.timeline import Origin


class SpeechEvents:
    """Remembers which window was announced, so that each opens and closes once."""

    def __init__(self) -> None:
        self._announced: int | None = None  # start of the open window

    def among(
        self, items: Iterable[TimelineItem], origin: Origin, open_start: int | None
    ) -> Iterator[TimelineItem | Speech]:
        """Yield the items, each window after its events. `open_start`: where the window that is open now begins."""
        for item in items:
            if isinstance(item, Window):
                if item.start != self._announced:
                    yield Speech(origin, item.start)
                yield Speech(origin, item.start, item.end, item.closed)
                self._announced = None
            yield item
        if open_start is not None and open_start != self._announced:
            self._announced = open_start
            yield Speech(origin, open_start)
