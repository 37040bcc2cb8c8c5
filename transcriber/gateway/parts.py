"""What the parts of the gateway that answer requests work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transcriber.gateway.figures import Figures
    from transcriber.gateway.lanes import Lanes
    from transcriber.gateway.options import GatewayOptions
    from transcriber.gateway.requests import Requests
    from transcriber.gateway.routes import Routes
    from transcriber.gateway.workers import WorkersView


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Given to each `register(parts)`, which adds its paths to `routes`."""

    options: GatewayOptions
    routes: Routes
    requests: Requests
    workers: WorkersView
    lanes: Lanes
    figures: Figures
