"""The head of an HTTP request that may open a WebSocket. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_HEAD = 16 * 1024  # bytes: twice what other servers take for one header
END = b"\r\n\r\n"
_MOST_FIELDS = 200  # of a query


@dataclass(frozen=True, slots=True)
class Head:
    """A request's first line and headers, names in lower case. A header that occurs several times is joined."""

    method: str
    target: str  # as it came, with the query
    version: str
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        """The path, decoded."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> dict[str, list[str]]:
        """The fields of the query. Raises `ValueError` when there are too many."""
        query = self.target.partition("?")[2]
        return parse_qs(query, keep_blank_values=True, max_num_fields=_MOST_FIELDS) if query else {}

    @property
    def upgrades(self) -> bool:
        """Whether the client wants a WebSocket."""
        return self.headers.get("upgrade", "").lower() == "websocket"

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """The WebSocket subprotocols that the client offers, in its order."""
        offered = self.headers.get("sec-websocket-protocol", "").split(",")
        return tuple(name for part in offered if (name := part.strip()))


def parse(data: bytes) -> Head:
    """Read a head, which ends with `END`. Raises `ValueError`."""
    first, *lines = data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target, version = first.split(" ")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise ValueError(line)
        name = name.lower()
        headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    return Head(method, target, version, headers)
