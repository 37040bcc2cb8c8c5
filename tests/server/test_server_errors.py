"""Errors after which a server hangs up: the connection is made again as soon as the server allows it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import pytest
from harness import NatsServer
from jwts import Authority
from proxy import Proxy

from transcriber.broker.connection import Connection
from transcriber.broker.options import BrokerOptions
from transcriber.domain.errors import BrokerError

BOB = '{ user: "bob", password: "x" }'
AUTHORITY = Authority()


@contextlib.asynccontextmanager
async def connected(options: BrokerOptions) -> AsyncIterator[Connection]:
    """A connection that must work in the end, and must never be given up."""
    connection = Connection(options)
    await connection.open()
    try:
        yield connection
        await connection.publish("a", b"b")
        assert await connection.flushed()
        await connection.confirm()
        assert not connection.lost.done()
    finally:
        await connection.close()


async def logged(caplog: pytest.LogCaptureFixture, words: str) -> None:
    """Wait until the log has these words."""
    async with asyncio.timeout(20):
        while words not in caplog.text:  # noqa: ASYNC110 - nobody else is told
            await asyncio.sleep(0.02)


async def reconnected(connection: Connection) -> None:
    async with asyncio.timeout(20):
        while not connection.reconnects:  # noqa: ASYNC110 - nobody else is told
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("max_connections: 10", "max_connections: 0", "'maximum connections exceeded'"),
        (
            f"accounts {{ A {{ users: [ {BOB} ] }}, B {{ users: [] }} }}",
            f"accounts {{ A {{ users: [] }}, B {{ users: [ {BOB.replace('x', 'y')} ] }} }}",
            "'Authorization Violation'",
        ),
        (
            AUTHORITY.config,
            AUTHORITY.configured("main", conn=0),
            "'maximum account active connections exceeded'",
        ),
        (AUTHORITY.config, AUTHORITY.configured("main", lasts=-1), "'Authorization Violation'"),
    ],
    ids=["connections", "moved to another account", "connections of the account", "account expired"],
)
async def test_connection_is_made_again_once_allowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, before: str, after: str, words: str
) -> None:
    """The log says what the server said, at each attempt."""
    creds = tmp_path / "user.creds"
    AUTHORITY.write(creds, lasts=600)
    who = {"creds": str(creds)} if "operator" in before else {"user": "bob", "password": "x"}
    with NatsServer(tmp_path / "nats", config=before) as server:
        async with connected(BrokerOptions(url=server.url, **who)) as connection:  # type: ignore[arg-type]
            server.reload(after)
            await logged(caplog, words)
            server.reload(before)
            await reconnected(connection)


async def test_revoked_user_is_back_with_new_credentials(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An operator revokes every user of before. A new one is on disk soon after."""
    creds = tmp_path / "user.creds"
    AUTHORITY.write(creds, lasts=600)
    with NatsServer(tmp_path / "nats", config=AUTHORITY.config) as server:
        async with connected(BrokerOptions(url=server.url, creds=str(creds))) as connection:
            server.reload(AUTHORITY.configured("main", revocations={"*": int(time.time())}))
            await logged(caplog, "user authentication revoked")
            async with asyncio.timeout(20):
                while not connection.reconnects:
                    AUTHORITY.write(creds, lasts=600)  # what is made in the second of the revocation is revoked, too
                    await asyncio.sleep(0.2)


async def test_slow_network_times_the_authentication_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The server's greeting comes through, and our answer does not come in time."""
    config = 'authorization { timeout: 0.3, users: [ { user: "bob", password: "x" } ] }'
    with NatsServer(tmp_path / "nats", config=config) as server:
        network = Proxy(server.port)
        await network.open()
        options = BrokerOptions(url=f"nats://127.0.0.1:{network.port}", user="bob", password="x")
        async with connected(options) as connection:
            network.hold()
            await network.cut()
            await network.open()
            await logged(caplog, "Authentication Timeout")
            network.release()
            await reconnected(connection)
        await network.cut()


async def test_smaller_max_payload_costs_one_connection(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The server tells its new limit at the next connection only. From then on it is kept to."""
    with NatsServer(tmp_path / "nats", config="max_payload: 100000") as server:
        async with connected(BrokerOptions(url=server.url)) as connection:
            server.reload("max_payload: 1000")
            async with asyncio.timeout(20):
                while not connection.reconnects:
                    with contextlib.suppress(nats.errors.MaxPayloadError):
                        await connection.publish("a", bytes(2000))  # until the server has read its new configuration
                    await asyncio.sleep(0.1)
            assert connection.max_payload == 1000
    assert "maximum payload violation" in caplog.text.lower()


async def test_start_tells_why_a_full_server_hangs_up(tmp_path: Path) -> None:
    """It says so while we are sending, where nats-py reads no further."""
    with NatsServer(tmp_path / "nats", config="max_connections: 10") as server:
        server.reload("max_connections: 0")
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                    greeting = await reader.read(4000)
                    writer.close()
                    if b"exceeded" in greeting:
                        break
                await asyncio.sleep(0.05)
        with pytest.raises(BrokerError, match=r"SECS=1 \(nats: 'maximum connections exceeded'\)"):
            await Connection(BrokerOptions(url=server.url, connect_timeout=1)).open()
