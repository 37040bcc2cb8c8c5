"""Formats results for a terminal: text, JSON, SubRip or WebVTT. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from transcriber.domain.cues import VTT_HEAD, srt_cue, timestamp, vtt_cue

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # these would move the cursor or change the terminal's colours


class Style(StrEnum):
    """The formats that `listen` can print."""

    TEXT = "text"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"


class Formatter:
    """Turns published messages into printable blocks.

    Subtitles have one timeline, so those styles follow the first session that they see and leave out the others.
    """

    def __init__(self, style: Style, *, name_streams: bool = True, partials: bool = False) -> None:
        self._style = style
        self._name_streams = name_streams
        self._partials = partials  # in text only: partials repeat what the final will say
        self._cues = 0
        self._followed: tuple[str, str] | None = None

    @property
    def head(self) -> str:
        """The text before the first block."""
        return VTT_HEAD if self._style is Style.VTT else ""

    def format(self, message: Mapping[str, Any]) -> str | None:
        """Return one block without its last line end; None when this style leaves the message out."""
        if self._style is Style.JSON:
            return json.dumps(message, ensure_ascii=False)
        if self._style is Style.TEXT:
            return self._text(message) if self._partials or message["type"] != "partial" else None
        return self._cue(message)

    def complete(self, message: Mapping[str, Any]) -> bool:
        """Whether the session of the subtitles ends with this message, so that no more can follow."""
        return message["type"] == "ended" and self._followed == (message["stream"], message["session"])

    def _cue(self, message: Mapping[str, Any]) -> str | None:
        session = (message["stream"], message["session"])
        if self._followed is None and message["type"] in {"started", "final"}:
            self._followed = session
        text = message["text"] if message["type"] == "final" else ""
        if not text.strip() or session != self._followed:
            return None
        self._cues += 1
        if self._style is Style.SRT:
            return srt_cue(self._cues, message["start"], message["end"], text)
        return vtt_cue(message["start"], message["end"], text)

    def _text(self, message: Mapping[str, Any]) -> str | None:
        where = f"{message['stream']}  " if self._name_streams else ""
        if "start" in message and "end" in message:
            start, end = (timestamp(message[key]).removeprefix("00:") for key in ("start", "end"))
            where += f"{start} - {end}  "
        write = _TEXTS.get(message["type"])
        what = write(message) if write else ""
        return _CONTROL.sub(" ", f"{where}{what}") if what else None


def account(message: Mapping[str, Any]) -> str:
    """Write the account in an `ended` or `status` message as one equation, exact so that it adds up."""
    gaps = ", ".join(f"{reason} {_exact(seconds)}" for reason, seconds in message["gap"].items())
    why = f" ({gaps})" if gaps else ""
    return (
        f"received {_exact(message['received'])} s = transcribed {_exact(message['transcribed'])}"
        f" + silent {_exact(message['silent'])} + gap {_exact(sum(message['gap'].values()))}{why}"
        f" + pending {_exact(message['pending'])}"
    )


def _exact(seconds: float) -> str:
    """Format with two decimals, or as many as the value needs: one sample is 0.0000625 s."""
    whole, _, decimals = f"{seconds:.7f}".partition(".")
    return f"{whole}.{decimals.rstrip('0'):0<2}"


_TEXTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "final": lambda m: str(m["text"]),
    "partial": lambda m: f"{m['text']} ...",
    "gap": lambda m: f"[not transcribed: {m['reason']}]",
    "suppressed": lambda m: f"[suppressed, {m['reason']}: {m['text']}]",
    "rejected": lambda m: f"[chunk rejected: {m['detail']}]",
    "replaced": lambda m: f"[{m['detail']}]",
    "lost": lambda m: f"[{m['messages']} messages lost]",
    "ended": lambda m: f"[ended: {account(m)}]",
}
