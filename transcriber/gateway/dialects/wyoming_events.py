"""Wyoming's framing: a line of JSON, then its data, then its payload. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LINE_BYTES = 64 * 1024  # the longest line that Wyoming's own reader takes (asyncio's default)


class EventError(ValueError):
    """Bytes that are no event. What follows them cannot be read either."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `payload` is audio."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""


class Events:
    """Reads events from a connection's bytes, cut anywhere. Holds back at most one event of `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._head: dict[str, Any] | None = None  # of an event whose rest is still to come

    def add(self, data: bytes) -> Iterator[Event]:
        """Take bytes and give the events that they complete. Raises `EventError`."""
        self._buffer += data
        while (event := self._next()) is not None:
            yield event

    def _next(self) -> Event | None:
        if self._head is None:
            end = self._buffer.find(b"\n", 0, _LINE_BYTES + 1)
            if end < 0:
                if len(self._buffer) > _LINE_BYTES:
                    raise EventError(f"a line is longer than {_LINE_BYTES} bytes")
                return None
            self._head = _head(bytes(self._buffer[:end]), self._limit)
            del self._buffer[: end + 1]
        data, payload = self._head["data_length"], self._head["payload_length"]
        if len(self._buffer) < data + payload:
            return None
        more = _object(bytes(self._buffer[:data]), "data") if data else {}
        event = Event(self._head["type"], {**self._head["data"], **more}, bytes(self._buffer[data : data + payload]))
        del self._buffer[: data + payload]
        self._head = None
        return event


def encode(event: Event) -> bytes:
    """The bytes of an event. What UTF-8 cannot hold is replaced."""
    data = json.dumps(event.data, ensure_ascii=False).encode("utf-8", "replace") if event.data else b""
    lengths = {"data_length": len(data), "payload_length": len(event.payload)}
    head = {"type": event.type, **{name: length for name, length in lengths.items() if length}}
    return json.dumps(head).encode() + b"\n" + data + event.payload


def _head(line: bytes, limit: int) -> dict[str, Any]:
    head = _object(line, "line")
    if not isinstance(head.get("type"), str):
        raise EventError("a line has no type")
    found = {"type": head["type"], "data": head.get("data") or {}}
    if not isinstance(found["data"], dict):
        raise EventError("the data of an event is no object")
    for name in ("data_length", "payload_length"):
        length = head.get(name) or 0
        if type(length) is not int or not 0 <= length <= limit:
            raise EventError(f"{name}={length!r}; allowed: 0 to {limit}")
        found[name] = length
    return found


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise EventError(f"the {what} of an event is no JSON object")
    return found
