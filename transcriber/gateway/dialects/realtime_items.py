"""The items of an OpenAI Realtime session: each a stretch of audio, and the text that is heard in it. Pure.

All times are seconds of the client's audio. Events are without their `event_id`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Event = dict[str, Any]

_TRANSCRIPTION = "conversation.item.input_audio_transcription"
_ROUNDING = 0.001  # seconds: more than a sample, at which clocks of different rates are rounded; less than a window
_SHOWN_LOSSES = 5  # of an item: more make no message clearer


@dataclass(slots=True, kw_only=True)
class Item:
    """A stretch of audio, [start, end). `end` is None until it is committed."""

    id: str
    start: float
    end: float | None = None
    wanted: bool = True  # else the client has cleared it
    flushing: bool = False  # it is complete when the daemon says so
    speaking: bool = False  # a window is open
    last: float | None = None  # the end of its last window
    unsettled: set[float] = field(default_factory=set)  # where its windows begin that have no text yet
    texts: list[str] = field(default_factory=list)
    lost: list[tuple[float, float, str]] = field(default_factory=list)
    language: str | None = None
    told: str = ""  # of the open window, in deltas
    told_at: float = 0.0  # where that window begins
    begun: bool = False  # there was a delta

    @property
    def text(self) -> str:
        return " ".join(text for text in self.texts if text)

    @property
    def settled(self) -> bool:
        """Whether all of its text is known, as far as its windows tell."""
        return self.end is not None and not self.flushing and not self.unsettled


class Items:
    """All items that are not complete yet: the committed ones, and the one under way. `prefix` makes ids unique."""

    def __init__(self, prefix: str) -> None:
        self.beta = False  # tell a new item as the beta did
        self.open: Item | None = None
        self.boundary = 0.0  # where the audio begins that is in no committed item
        self._committed: list[Item] = []
        self._prefix = prefix
        self._count = 0
        self._previous: str | None = None

    def begin(self, start: float) -> Item:
        """Begin the next item."""
        self.open = Item(id=self._id(), start=start)
        return self.open

    def of(self, start: float, end: float) -> Item | None:
        """The item that a window or gap belongs to."""
        for item in (*self._committed, *([self.open] if self.open is not None else [])):
            if (item.end is None or start < item.end - _ROUNDING) and end > item.start + _ROUNDING:
                return item
        return None

    def commit(self, item: Item, at: float) -> Iterator[Event]:
        """End the open item."""
        self._close(item, at)
        yield {"type": "input_audio_buffer.committed", "item_id": item.id, "previous_item_id": self._previous}
        yield from self._added(item.id)

    def discard(self, item: Item, at: float) -> None:
        """End the open item; its text will not be told."""
        item.wanted = False
        self._close(item, at)

    def hear_so_far(self, item: Item, start: float, stable: str) -> Iterator[Event]:
        """Take the part that will not change of the text of an open window, which begins at `start`."""
        if not any(window < start for window in item.unsettled):  # else its text would come before theirs
            item.told_at = start
            yield from self._grow(item, stable)

    def hear(self, item: Item, text: str) -> Iterator[Event]:
        """Take the text of a window of an item."""
        yield from self._grow(item, text)
        item.texts.append(text)
        item.told = ""

    def lose(self, item: Item, start: float, end: float, reason: str) -> None:
        """Take the loss of [start, end) of an item."""
        item.lost.append((start, end, reason))
        item.unsettled = {window for window in item.unsettled if not start <= window < end}
        if start <= item.told_at < end:
            item.told = ""

    def _grow(self, item: Item, known: str) -> Iterator[Event]:
        if not item.wanted or len(known) <= len(item.told) or not known.startswith(item.told):
            return
        space = " " if item.begun and not item.told else ""
        yield self._told(item, "delta", delta=space + known[len(item.told) :])
        item.told, item.begun = known, True

    def complete(self, item: Item) -> Iterator[Event]:
        """Tell the whole text of a committed item, and what was lost of it."""
        self._committed.remove(item)
        if not item.wanted:
            return
        if item.text or not item.lost:
            seconds = round((item.end or item.start) - item.start, 6)
            usage = {"type": "duration", "seconds": max(0.0, seconds)}
            spoken = {"languages": [{"code": item.language}]} if item.language else {}
            yield self._told(item, "completed", transcript=item.text, usage=usage, **spoken)
            if item.lost:
                yield from self.fail(item.lost)
        else:
            yield self._failed(item.id, item.lost)

    def fail(self, lost: list[tuple[float, float, str]]) -> Iterator[Event]:
        """Tell of lost audio with an item of its own."""
        number = self._id()
        yield from self._added(number)
        yield self._failed(number, lost)

    def settled(self, *, all_of_them: bool = False) -> list[Item]:
        """The committed items whose text is known. `all_of_them`: everything is settled, except for flushes."""
        return [item for item in self._committed if item.settled or (all_of_them and not item.flushing)]

    def _id(self) -> str:
        self._count += 1
        return f"item_{self._prefix}_{self._count}"

    def _close(self, item: Item, at: float) -> None:
        item.end = self.boundary = at
        self.open = None
        self._committed.append(item)

    def _added(self, item_id: str) -> Iterator[Event]:
        content = [{"type": "input_audio", "transcript": None}]
        about = {"id": item_id, "object": "realtime.item", "type": "message", "status": "completed", "role": "user"}
        event = {"previous_item_id": self._previous, "item": {**about, "content": content}}
        for kind in ("created",) if self.beta else ("added", "done"):
            yield {"type": f"conversation.item.{kind}", **event}
        self._previous = item_id

    def _told(self, item: Item, what: str, **more: object) -> Event:
        return {"type": f"{_TRANSCRIPTION}.{what}", "item_id": item.id, "content_index": 0, **more}

    def _failed(self, item_id: str, lost: list[tuple[float, float, str]]) -> Event:
        losses = [f"{start:.2f} s to {end:.2f} s ({reason})" for start, end, reason in lost[:_SHOWN_LOSSES]]
        more = f" and {len(lost) - _SHOWN_LOSSES} more" if len(lost) > _SHOWN_LOSSES else ""
        message = f"not transcribed: {', '.join(losses)}{more}"
        error = {"type": "transcription_error", "code": lost[0][2], "message": message, "param": None}
        return {"type": f"{_TRANSCRIPTION}.failed", "item_id": item_id, "content_index": 0, "error": error}


def speech_started(item: Item) -> Event:
    return {"type": "input_audio_buffer.speech_started", "audio_start_ms": _ms(item.start), "item_id": item.id}


def speech_stopped(item: Item, end: float) -> Event:
    return {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": _ms(end), "item_id": item.id}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
