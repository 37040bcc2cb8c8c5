"""What a bridge stands between: the client's connection, and what all bridges share."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from transcriber.broker.direct import DirectLine
    from transcriber.gateway.figures import Figures
    from transcriber.gateway.owners import Owners
    from transcriber.gateway.results import Results


class Outlet(Protocol):
    """The client's connection, as a bridge uses it."""

    def send(self, message: str | bytes, *, optional: bool) -> None: ...
    def close(self, code: int, reason: str) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Serving(Protocol):
    """Whether any worker is there."""

    @property
    def serving(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all bridges share. `gateway` is a part of every stream's name."""

    line: DirectLine
    results: Results
    workers: Serving
    figures: Figures
    gateway: str
    owners: Owners | None = None  # of a fleet's partitions

    @property
    def open(self) -> bool:
        """Whether a message goes out at once, and a worker may hear it."""
        return self.line.open and self.workers.serving

    def new_name(self, tenant: str, number: int = 0) -> str:
        """A new name for the stream of a client's channel."""
        return f"{tenant}-{self.gateway}-{secrets.token_hex(6)}{f'-{number}' if number else ''}"

    def another_name(self, tenant: str, number: int) -> str | None:
        """The same, whose partition may have an owner; None if none is known that may."""
        return None if self.owners is None else self.owners.name(lambda: self.new_name(tenant, number))
