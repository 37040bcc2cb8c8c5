"""What a producer asks for besides the defaults, read from its headers. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from transcriber.domain.chunks import IgnoredHeader, Preferences
from transcriber.protocol import headers as names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


LONGEST_PROMPT = 896  # characters: Whisper takes 224 tokens, of four characters in English

_SHOWN = 160  # characters of a bad value that a warning repeats
_TIMEOUTS = (1, 86_400)  # seconds; a shorter one would end sessions whose producers are only late
_SECONDS = re.compile(r"[0-9]{1,5}(\.[0-9]{1,3})?")
_DIGITS = 6  # of milliseconds: a quarter of an hour, and no more than a number needs
_MILLISECONDS = re.compile(rf"[0-9]{{1,{_DIGITS}}}")


def preferences_of(headers: Mapping[str, str]) -> Preferences | None:
    """Return what the headers ask for, None if they ask for nothing. A bad value is left out, and named."""
    found: dict[str, Any] = {}
    ignored: list[IgnoredHeader] = []
    for name, (field, parse, allowed) in _READ.items():
        if (value := headers.get(name)) is None:
            continue
        try:
            found[field] = parse(value)
        except (ValueError, KeyError):
            ignored.append(IgnoredHeader(name, value[:_SHOWN], allowed))
    return Preferences(**found, ignored=tuple(ignored)) if found or ignored else None


def _timeout(value: str) -> float:
    if not _SECONDS.fullmatch(value) or not _TIMEOUTS[0] <= float(value) <= _TIMEOUTS[1]:
        raise ValueError
    return float(value)


def _pause(value: str) -> float:
    if not _MILLISECONDS.fullmatch(value):
        raise ValueError
    return int(value) / 1000


# By header: the field of `Preferences`, how a value is read, and what is allowed.
_READ: Mapping[str, tuple[str, Callable[[str], Any], str]] = {
    names.NOTIFY: ("speech", {"speech": True}.__getitem__, "speech"),
    names.PROMPT: ("prompt", lambda value: value[-LONGEST_PROMPT:], "text"),
    names.TASK: ("translate", {"transcribe": False, "translate": True}.__getitem__, "transcribe or translate"),
    names.TIMEOUT: ("timeout", _timeout, f"seconds, {_TIMEOUTS[0]} to {_TIMEOUTS[1]}"),
    names.ENDPOINTING: ("pause", _pause, f"whole milliseconds, at most {_DIGITS} digits"),
    names.PARTIALS: ("partials", {"on": True, "off": False}.__getitem__, "on or off"),
}
