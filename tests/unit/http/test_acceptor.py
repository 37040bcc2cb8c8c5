"""Where the port listens, how few connections it keeps, and for how short a time."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator

import pytest
from harness import free_port
from viewer import Viewer

from transcriber.domain.errors import CannotStart
from transcriber.http import acceptor
from transcriber.http.acceptor import HealthOptions
from transcriber.http.server import HealthServer

needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")


def made(host: str, port: int = 0) -> HealthServer:
    return HealthServer(HealthOptions(host, port), {"/livez": lambda: None})


async def answers(address: str, port: int) -> bool:
    try:
        async with Viewer(port, "/livez", address=address) as probe:
            return probe.status == "HTTP/1.1 200 OK"
    except ConnectionRefusedError:
        return False


@pytest.fixture
async def server() -> AsyncIterator[HealthServer]:
    server = made("127.0.0.1")
    await server.start()
    yield server
    await server.stop()


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("::", ["127.0.0.1", "127.0.0.2", "::1"]),
        ("127.0.0.1,::1", ["127.0.0.1", "::1"]),
        ("127.0.0.1 , ::1,127.0.0.1", ["127.0.0.1", "::1"]),
        ("0.0.0.0,::", ["127.0.0.1", "127.0.0.2", "::1"]),
        ("127.0.0.1,::", ["127.0.0.1", "::1"]),
        ("::1", ["::1"]),
        ("0.0.0.0", ["127.0.0.1", "127.0.0.2"]),
    ],
)
async def test_each_address_is_served_on_one_port(host: str, served: list[str]) -> None:
    """One wildcard or a list serves both families, and nothing else."""
    server = made(host)
    await server.start()
    reached = [address for address in ("127.0.0.1", "127.0.0.2", "::1") if await answers(address, server.port)]
    await server.stop()
    assert reached == served
    assert not await answers(served[0], server.port)


async def test_all_addresses_without_ipv6_are_those_of_ipv4(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`::` works on every machine. The log says which address is missing."""

    class NoIPv6(socket.socket):
        """A stand-in for a kernel that was started with ipv6.disable=1."""

        def __init__(self, family: int = -1, *arguments: int, **named: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *arguments, **named)

    monkeypatch.setattr(socket, "socket", NoIPv6)
    server = made("::")
    await server.start()
    assert await answers("127.0.0.1", server.port)
    await server.stop()
    assert caplog.messages == ["HEALTH_HOST=::, but this machine has no IPv6: listening on IPv4 alone"]
    with pytest.raises(CannotStart, match=r"HEALTH_HOST=::1 .*Address family not supported"):
        await made("::1").start()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2,127.0.0.1", "::"])
async def test_a_taken_port_is_a_reason_not_to_start(host: str) -> None:
    """The error names both settings and their values. No socket stays open."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(CannotStart, match=f"HEALTH_HOST={host} HEALTH_PORT={taken}: Address already in use"):
            await made(host, taken).start()
    again = made(host, taken)
    await again.start()
    await again.stop()


@pytest.mark.parametrize("host", ["203.0.113.1", "a..b", "x" * 64, "127.0.0.1,203.0.113.1"])
async def test_a_host_that_is_none_is_a_reason_not_to_start(host: str) -> None:
    """The error names the setting, whatever is wrong with the address."""
    with pytest.raises(CannotStart, match=f"HEALTH_HOST={host}"):
        await made(host, free_port()).start()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """All bytes until the server hangs up."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("said", [b"", b"GET /livez HTTP/1.1\r\nX: "])
async def test_a_client_that_never_finishes_is_cut(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    """It has a few seconds to say what it wants."""
    monkeypatch.setattr(acceptor, "_ANSWER_SECS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(said)
    async with asyncio.timeout(5):
        assert await rest(reader) == b""
    writer.close()


async def test_a_client_that_takes_no_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes that nobody fetches hold a descriptor no longer than an unfinished request does."""
    monkeypatch.setattr(acceptor, "_ANSWER_SECS", 0.5)
    server, size = made("127.0.0.1"), 50_000_000
    server.offer("/metrics", "text/plain", lambda: "x" * size)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(10):
        await reader.readexactly(1)
        while server._acceptor._waiting:  # noqa: ASYNC110 - it has no event for it
            await asyncio.sleep(0.01)
        assert len(await rest(reader)) < size
    writer.close()
    await server.stop()


async def test_the_oldest_idle_connection_gives_its_place_away(server: HealthServer) -> None:
    """A probe is answered among any number of silent clients. No more connections than the limit are kept."""
    idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(100)]
    try:
        async with asyncio.timeout(4):
            assert await answers("127.0.0.1", server.port)
            for reader, _ in idle[: 101 - acceptor._PLACES]:
                assert await rest(reader) == b""
        assert not any(reader.at_eof() or reader.exception() for reader, _ in idle[101 - acceptor._PLACES :])
    finally:
        for _, writer in idle:
            writer.close()
