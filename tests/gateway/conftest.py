"""One server, daemon and gateway for all tests that only ask them for texts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import free_port
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
