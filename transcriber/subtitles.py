"""Results as lines for a terminal: text, JSON, SubRip or WebVTT. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any


class Style(StrEnum):
    """How `listen` prints."""

    TEXT = "text"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"


class Formatter:
    """Turns published messages into printable blocks; counts cues as SubRip wants them."""

    def __init__(self, style: Style, *, name_streams: bool = True) -> None:
        self._style = style
        self._name_streams = name_streams
        self._cues = 0

    @property
    def head(self) -> str:
        """What stands before the first block."""
        return "WEBVTT\n" if self._style is Style.VTT else ""

    def format(self, message: Mapping[str, Any]) -> str | None:
        """One block without its last line end; None when this style has nothing to say about the message."""
        if self._style is Style.JSON:
            return json.dumps(message, ensure_ascii=False)
        if self._style is Style.TEXT:
            return self._text(message)
        if message["type"] != "final" or not message["text"]:
            return None
        self._cues += 1
        comma = "," if self._style is Style.SRT else "."
        start, end = (timestamp(message[key], comma) for key in ("start", "end"))
        number = f"{self._cues}\n" if self._style is Style.SRT else ""
        return f"{number}{start} --> {end}\n{message['text']}\n"

    def _text(self, message: Mapping[str, Any]) -> str | None:
        where = f"{message['stream']}  " if self._name_streams else ""
        if "start" in message:
            where += f"{timestamp(message['start'])[3:]} - {timestamp(message['end'])[3:]}  "
        write = _TEXTS.get(message["type"])
        what = write(message) if write else ""
        return f"{where}{what}" if what else None


def timestamp(seconds: float, separator: str = ".") -> str:
    """HH:MM:SS.mmm, rounded to milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{separator}{rest % 1000:03}"


def account(message: Mapping[str, Any]) -> str:
    """The accounting of an `ended` or `status` message as one equation."""
    gap = sum(message["gap"].values())
    reasons = "".join(f" {reason} {seconds:.2f}" for reason, seconds in message["gap"].items())
    why = f" ({reasons.strip()})" if reasons else ""
    return (
        f"received {message['received']:.2f} s = transcribed {message['transcribed']:.2f}"
        f" + silent {message['silent']:.2f} + gap {gap:.2f}{why} + pending {message['pending']:.2f}"
    )


_TEXTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "final": lambda m: str(m["text"]),
    "partial": lambda m: f"{m['text']} ...",
    "gap": lambda m: f"[not transcribed: {m['reason']}]",
    "suppressed": lambda m: f"[suppressed, {m['reason']}: {m['text']}]",
    "rejected": lambda m: f"[chunk rejected: {m['detail']}]",
    "lost": lambda m: f"[{m['messages']} messages lost]",
    "ended": lambda m: f"[ended: {account(m)}]",
}
