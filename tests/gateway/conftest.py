"""One stack for many tests: starting a daemon takes longer than most of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from gateway_stack import Stack, run_stack


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with run_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running
