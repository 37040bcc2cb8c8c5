"""One server, daemon and gateway for all tests that only ask them for texts, and a listener for the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from command import Bus, bus
from harness import NatsServer, free_port
from served import served


@pytest.fixture(scope="session")
def wyoming_port() -> int:
    """Where the gateway listens for Wyoming."""
    return free_port()


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory, wyoming_port: int) -> Iterator[str]:
    """The gateway's address."""
    with served(tmp_path_factory.mktemp("served"), GATEWAY_WYOMING_PORT=str(wyoming_port)) as running:
        yield running.url


@pytest.fixture
def sockets(address: str) -> str:
    """Its address for WebSockets."""
    return address.replace("http", "ws", 1)


@pytest.fixture
async def heard(nats_server: NatsServer) -> AsyncIterator[Bus]:
    """What is published on a server without a daemon."""
    async with bus(nats_server.url) as listening:
        yield listening
