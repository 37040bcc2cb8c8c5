"""The names of headers, in whatever case they come, and what a misspelt one was meant to be. Pure."""

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
TRACEPARENT = "traceparent"
UNREADABLE = "\r\n"  # stands, where no header can, for a header block that could not be read

NAMES = {
    name.lower(): name for name in (ENCODING, RATE, CHANNELS, SESSION, OFFSET, LANGUAGE, TENANT, EVENT, TRACEPARENT)
}
# What others call it; and what is left of our names for difflib, which would be content with the same "audio-".
_STEMS = {name.removeprefix("audio-"): ours for name, ours in NAMES.items()} | {
    "rate": RATE,
    "format": ENCODING,
    "codec": ENCODING,
    "lang": LANGUAGE,
}
_OURS = re.compile(r"(x[-_])?audio", re.IGNORECASE)  # what an unknown name begins with that was meant for us
_LONGEST = 64  # characters of it that are looked at
_CLOSE = 0.6  # difflib's own measure of what is worth showing

_NAME = re.compile(r"(?:(?!\s)[\x00-\x7f])*")  # of a header
_SPACE = " \t\r\n\v\f"  # around it and its value
_BLOCK = b"NATS/1.0\r\n"  # how a block of headers begins; a status of the server's would stand in that line


def fields(block: bytes) -> dict[str, str]:
    """Read a header block, as nats-py does: names that no header can have are left out; `UNREADABLE` if it is none."""
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
    """The same headers, with the names that we know as we write them."""
    return {NAMES.get(name.lower(), name): value for name, value in (headers or {}).items()}


def unknown(headers: Mapping[str, str]) -> tuple[str, str | None] | None:
    """Return the first name that was meant for us and is none of ours, and which of ours is the closest."""
    for name in headers:
        if name not in NAMES.values() and _OURS.match(name):
            return name[:_LONGEST], meant(name)
    return None


def meant(name: str) -> str | None:
    """Return which of our names this is a misspelling of, None when it is like none of them."""
    stem = _OURS.sub("", name[:_LONGEST], count=1).lstrip("-_ ").lower()
    close = difflib.get_close_matches(stem, _STEMS, n=1, cutoff=_CLOSE)
    return _STEMS[close[0]] if close else None
