"""What a bridge stands between: the client's connection, and what all bridges share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from transcriber.broker.direct import DirectLine
    from transcriber.gateway.figures import Figures
    from transcriber.gateway.results import Results
    from transcriber.protocol.partitions import FleetOptions


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
    fleet: FleetOptions | None = None  # whose daemons hear the streams
