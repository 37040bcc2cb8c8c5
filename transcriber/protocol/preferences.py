"""What a producer asks for besides the defaults, read from its headers. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transcriber.domain.chunks import IgnoredHeader, Preferences
from transcriber.protocol import headers as names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


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


_SHOWN = 160  # characters of a bad value that a warning repeats

# By header: the field of `Preferences`, how a value is read, and what is allowed.
_READ: Mapping[str, tuple[str, Callable[[str], Any], str]] = {
    names.NOTIFY: ("speech", {"speech": True}.__getitem__, "speech"),
}
