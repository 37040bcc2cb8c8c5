"""A NATS server, a daemon with the bundled model and a gateway with all of its protocols."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateways import gateway
from harness import QUICK, Daemon, NatsServer

from transcriber.gateway.service import Gateway


@dataclass(frozen=True)
class Stack:
    """What runs."""

    server: NatsServer
    daemon: Daemon
    gateway: Gateway

    def address(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.gateway.port}{path}"


@contextlib.asynccontextmanager
async def run_stack(folder: Path, **options: Any) -> AsyncIterator[Stack]:
    """All three, ready; Wyoming has a free port, too."""
    with NatsServer(folder) as server:
        async with Daemon(server.url, **QUICK) as daemon, gateway(server.url, wyoming_port=0, **options) as serving:
            yield Stack(server, daemon, serving)
