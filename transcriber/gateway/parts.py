"""What the parts of the gateway that answer requests work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transcriber.gateway.figures import Figures
    from transcriber.gateway.options import GatewayOptions
    from transcriber.gateway.requests import Requests
    from transcriber.gateway.routes import Routes
    from transcriber.gateway.workers import Worker


class WorkersView(Protocol):
    """The workers as they are known at present."""

    @property
    def all(self) -> Sequence[Worker]: ...

    async def ask(self) -> Sequence[Worker]:
        """Ask them now, unless that was done within the last second."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Given to each `register(parts)`, which adds its paths to `routes`."""

    options: GatewayOptions
    routes: Routes
    requests: Requests
    workers: WorkersView
    figures: Figures
