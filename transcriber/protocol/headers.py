"""The names of headers, in any case, and the nearest name to a misspelt one. Pure."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ENCODING = "Audio-Encoding"
RATE = "Audio-Sample-Rate"
CHANNELS = "Audio-Channels"
SESSION = "Audio-Session"
OFFSET = "Audio-Offset"
LANGUAGE = "Audio-Language"
TENANT = "Audio-Tenant"
EVENT = "Audio-Event"
NOTIFY = "Audio-Notify"
PROMPT = "Audio-Prompt"
TASK = "Audio-Task"
TIMEOUT = "Audio-Timeout"
ENDPOINTING = "Audio-Endpointing-Ms"
PARTIALS = "Audio-Partials"
TRACEPARENT = "traceparent"
UNREADABLE = "\r\n"  # no header has this name; it marks a header block that could not be read

NAMES = {
    name.lower(): name
    for name in (
        *(ENCODING, RATE, CHANNELS, SESSION, OFFSET, LANGUAGE, TENANT, EVENT),
        *(NOTIFY, PROMPT, TASK, TIMEOUT, ENDPOINTING, PARTIALS),
        TRACEPARENT,
    )
}
# Other words for each name; and our names without "audio-", which difflib would count as likeness.
_STEMS = {name.removeprefix("audio-"): ours for name, ours in NAMES.items()} | {
    "rate": RATE,
    "format": ENCODING,
    "codec": ENCODING,
    "lang": LANGUAGE,
}
_OURS = re.compile(r"(x[-_])?audio", re.IGNORECASE)  # the beginning of an unknown name that was meant for us
_LONGEST = 64  # characters that are compared
_CLOSE = 0.6  # difflib's default cutoff

_NAME = re.compile(r"(?:(?!\s)[\x00-\x7f])*")  # of a header
_SPACE = " \t\r\n\v\f"  # around it and its value
_BLOCK = b"NATS/1.0\r\n"  # how a header block begins; a status of the server would be in that line


def fields(block: bytes) -> dict[str, str]:
    """Read a header block as nats-py does. Skips impossible names; returns `UNREADABLE` for a bad block."""
    if not block.startswith(_BLOCK):
        return {UNREADABLE: ""}
    found = {}
    for line in block[len(_BLOCK) :].decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        name = name.strip(_SPACE)
        if colon and _NAME.fullmatch(name):
            found[NAMES.get(name.lower(), name)] = value.strip(_SPACE)
    return found


def canonical(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The same headers, with known names in our spelling."""
    return {NAMES.get(name.lower(), name): value for name, value in (headers or {}).items()}


def unknown(headers: Mapping[str, str]) -> tuple[str, str | None] | None:
    """Return the first unknown name that was meant for us, and our closest name."""
    for name in headers:
        if name not in NAMES.values() and _OURS.match(name):
            return name[:_LONGEST], meant(name)
    return None


def meant(name: str) -> str | None:
    """Return our name that this one misspells; None if it resembles none."""
    stem = _OURS.sub("", name[:_LONGEST], count=1).lstrip("-_ ").lower()
    close = difflib.get_close_matches(stem, _STEMS, n=1, cutoff=_CLOSE)
    return _STEMS[close[0]] if close else None
