"""One server, daemon and gateway for all tests that only ask them for texts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import served


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gateway's address."""
    with served(tmp_path_factory.mktemp("served")) as running:
        yield running.url
