"""/livez and /readyz: what they answer, to whom, and what no client can do to them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from harness import QUICK, Client, Daemon, NatsServer
from viewer import Viewer

from transcriber.http.acceptor import HealthOptions
from transcriber.http.server import HealthServer


@pytest.fixture
async def server() -> AsyncIterator[HealthServer]:
    checks = {"/livez": lambda: None, "/readyz": lambda: "draining"}
    made = HealthServer(HealthOptions("127.0.0.1", 0), checks)
    await made.start()
    yield made
    await made.stop()


async def ask(server: HealthServer, request: bytes) -> tuple[str, bytes]:
    """Send these bytes. Returns the status and the body, which is empty when the server just hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"aiohttp" not in head
    return head.partition(b"\r\n")[0].decode().partition(" ")[2], body


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /livez HTTP/1.1", "200 OK"),
        ("GET /livez?verbose HTTP/1.0", "200 OK"),
        ("HEAD /livez HTTP/1.1", "200 OK"),
        ("GET /readyz HTTP/1.1", "503 Service Unavailable"),
        ("GET / HTTP/1.1", "404 Not Found"),
        ("GET /livez/ HTTP/1.1", "404 Not Found"),
        ("POST /livez HTTP/1.1", "405 Method Not Allowed"),
        ("DELETE /readyz HTTP/1.1", "405 Method Not Allowed"),
        ("hello", "400 Bad Request"),
        ("", "400 Bad Request"),
        ("GET /livez HTTP/1.1 and more", "400 Bad Request"),
        ("\x16\x03\x01\x02", "400 Bad Request"),
    ],
)
async def test_every_request_gets_its_status(server: HealthServer, request_line: str, status: str) -> None:
    """GET and HEAD work on the two paths. Anything else gets one of HTTP's own statuses."""
    answered, body = await ask(server, f"{request_line}\r\nHost: x\r\n\r\n".encode("latin-1"))
    assert answered == status
    assert (body == b"") == (request_line.startswith("HEAD") or status.startswith("400"))


async def test_nothing_is_cached_and_no_connection_kept(server: HealthServer) -> None:
    """A probe opens a new connection each time, and an idle one would hold a file descriptor."""
    async with Viewer(server.port, "/livez") as probe:
        assert json.loads(await probe.rest()) == {"status": "ok"}
    assert probe.headers.pop("Date")
    assert probe.headers == {
        "Content-Type": "application/json",
        "Content-Length": "17",
        "Cache-Control": "no-store",
        "Connection": "close",
    }


async def test_junk_leaves_no_line_in_the_log(server: HealthServer, caplog: pytest.LogCaptureFixture) -> None:
    """A port scanner writes nothing into it."""
    assert (await ask(server, b"\x16\x03\x01\x02\r\n\r\n"))[0] == "400 Bad Request"
    assert (await ask(server, b"GET / HTTP/9.9\r\nHost: x\r\n\r\n"))[0] == "400 Bad Request"
    assert caplog.records == []


async def test_a_check_that_fails_is_told_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The answer is not healthy, and the next request is served."""

    def fail() -> str:
        raise RuntimeError("no idea")

    server = HealthServer(HealthOptions("127.0.0.1", 0), {"/livez": fail, "/readyz": lambda: None})
    await server.start()
    assert (await ask(server, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == "500 Internal Server Error"
    assert "no idea" in caplog.text
    assert (await ask(server, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == "200 OK"
    await server.stop()


async def test_a_503_says_what_is_wrong(server: HealthServer) -> None:
    """The body is JSON and carries the check's own words."""
    _, body = await ask(server, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert json.loads(body) == {"status": "failing", "reason": "draining"}


@pytest.mark.parametrize("junk", [b"\x00" * 10_000, b"GET " + b"x" * 10_000, b"\xff\xfe\r\n" * 5000])
async def test_junk_is_answered_or_cut_off_and_harms_nobody(server: HealthServer, junk: bytes) -> None:
    """Endless lines and binary junk end that connection. The next probe is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(junk)
    writer.write_eof()
    try:
        assert (await reader.read())[:12] in {b"", b"HTTP/1.0 400"}
    except ConnectionError:
        pass  # cut off with junk unread
    finally:
        writer.close()
    assert (await ask(server, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == "200 OK"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


async def test_the_daemon_exits_with_3_when_its_port_is_taken(taken: int) -> None:
    """It exits before a model is loaded, with one log line."""
    async with Daemon("nats://127.0.0.1:1", wait=False, HEALTH_PORT=str(taken)) as daemon:
        assert await daemon.ended(10) == 3
    assert f"HEALTH_PORT={taken}" in daemon.records[-1]["message"]
    assert daemon.records[-1]["level"] == "critical"
    assert daemon.stderr == ""


async def test_the_daemon_is_ready_while_it_has_a_model_and_nats(nats_server: NatsServer, client: Client) -> None:
    """/readyz says 503 before start-up is done and while NATS is away, else 200. /livez says 200 throughout."""
    async with Daemon(nats_server.url, wait=False, **QUICK) as daemon:
        assert (await daemon.probe("/readyz"), await daemon.probe("/livez")) == (503, 200)
        await daemon.logged("ready")
        assert (await daemon.probe("/readyz"), await daemon.probe("/livez")) == (200, 200)
        nats_server.kill()
        await daemon.logged("NATS disconnected")
        assert (await daemon.probe("/readyz"), await daemon.probe("/livez")) == (503, 200)
        nats_server.start()
        await daemon.logged("NATS reconnected")
        assert (await daemon.probe("/readyz"), await daemon.probe("/livez")) == (200, 200)
        assert await daemon.stop() == 0
    assert client.heard == []
