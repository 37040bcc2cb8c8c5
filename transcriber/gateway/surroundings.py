"""What a bridge stands between: the client's connection, and what all bridges share."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from transcriber.broker.direct import DirectLine
    from transcriber.gateway.figures import Figures
    from transcriber.gateway.lanes import Lane, Lanes
    from transcriber.gateway.results import Results


log = logging.getLogger(__name__)


class Outlet(Protocol):
    """The client's connection, as a bridge uses it."""

    def send(self, message: str | bytes, *, optional: bool) -> None: ...
    def close(self, code: int, reason: str) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all bridges share. `gateway` is a part of every stream's name."""

    line: DirectLine
    results: Results
    lanes: Lanes
    figures: Figures
    gateway: str

    def new_name(self, tenant: str, number: int = 0) -> str:
        """A new name for the stream of a client's channel."""
        return f"{tenant}-{self.gateway}-{secrets.token_hex(6)}{f'-{number}' if number else ''}"

    def note_loss(self, stream: str, reason: str, start: float, end: float) -> None:
        """Count audio that will not be transcribed, and log it."""
        self.figures.lost += end - start
        # `stream` would be a limit for each: when a worker dies, thousands may lose something.
        extra = {"name_of_stream": stream, "start": start, "end": end, "reason": reason, "limited": True}
        log.warning("audio was lost", extra=extra)

    def another_name(self, lane: Lane, tenant: str, number: int) -> str | None:
        """The same, whose partition in a lane may have an owner; None if none is known that may."""
        return lane.name(lambda: self.new_name(tenant, number))
