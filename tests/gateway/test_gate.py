"""Who is let in: keys, origins, places and workers, told with a status before any upgrade."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
import pytest
from gateways import error_of, gateway, refusal, worker
from harness import NatsServer
from metric_names import GATEWAY, scraped_name
from websockets.asyncio.client import connect

from transcriber.gateway import keys
from transcriber.gateway.service import Gateway
from transcriber.telemetry.providers import TelemetryOptions


@pytest.fixture
async def serving(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway that wants the key "secret", with one worker."""
    path = tmp_path / "keys"
    path.write_text(f"# tenants\n{keys.line_of('secret', 'acme')} streams=2\n")
    async with (
        worker(nats_server.url),
        gateway(nats_server.url, keys=path, origins=frozenset({"https://a.example"})) as g,
    ):
        yield g


@pytest.mark.parametrize(
    "options",
    [
        {"additional_headers": {"Authorization": "Bearer secret"}},
        {"additional_headers": {"Authorization": "Token secret"}},
        {"additional_headers": {"Authorization": "secret"}},
        {"additional_headers": {"X-API-Key": "secret"}},
        {"additional_headers": {"api-key": "secret"}},
        {"subprotocols": ["realtime", "openai-insecure-api-key.secret"]},
        {"subprotocols": ["token", "secret"]},
    ],
    ids=str,
)
async def test_key_is_taken_from_every_place(serving: Gateway, options: Mapping[str, object]) -> None:
    """Of subprotocols the marker is accepted, never the key."""
    async with connect(f"ws://127.0.0.1:{serving.port}/plain", **options) as client:
        assert client.subprotocol in {None, "realtime", "token"}
        assert client.response.headers["x-plain"] == "yes"


async def test_unknown_key_is_refused_before_the_upgrade(serving: Gateway) -> None:
    response = await refusal(serving, additional_headers={"Authorization": "Bearer wrong"})
    assert (response.status_code, error_of(response)) == (401, "invalid_api_key")
    assert (await refusal(serving)).status_code == 401


async def test_key_opens_no_more_connections_than_it_may(serving: Gateway) -> None:
    """A place is free again when a client has left."""
    where, header = f"ws://127.0.0.1:{serving.port}/plain", {"Authorization": "Bearer secret"}
    async with connect(where, additional_headers=header):
        async with connect(where, additional_headers=header):
            response = await refusal(serving, additional_headers=header)
            assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
        async with asyncio.timeout(5), connect(where, additional_headers=header):
            pass


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://a.example", None), ("https://b.example", 403), ("http://127.0.0.1", 403), (None, None)],
)
async def test_pages_of_other_sites_are_refused(serving: Gateway, origin: str | None, status: int | None) -> None:
    """Only those on the list, and what is no browser."""
    header = {"Authorization": "Bearer secret"}
    if status is None:
        async with connect(f"ws://127.0.0.1:{serving.port}/plain", additional_headers=header, origin=origin):
            return
    response = await refusal(serving, additional_headers=header, origin=origin)
    assert (response.status_code, error_of(response)) == (status, "origin_not_allowed")


async def test_own_page_is_let_in_and_a_strangers_name_is_not(nats_server: NatsServer) -> None:
    """Without keys, a name that anybody can point at this machine is no proof."""
    async with worker(nats_server.url), gateway(nats_server.url) as serving:
        own = f"http://127.0.0.1:{serving.port}"
        async with connect(f"ws://127.0.0.1:{serving.port}/plain", origin=own):
            pass
        rebound = f"rebound.example:{serving.port}"
        response = await refusal(serving, origin=f"http://{rebound}", additional_headers={"Host": rebound})
        assert response.status_code == 403


async def test_preflight_of_a_listed_page_is_answered(serving: Gateway) -> None:
    url = f"http://127.0.0.1:{serving.port}/v1/realtime/client_secrets"
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    async with aiohttp.ClientSession() as session:
        async with session.options(url, headers=asked) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"
        async with session.options(url, headers=asked | {"Origin": "https://b.example"}) as answer:
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_browser_token_opens_a_connection_as_its_key(serving: Gateway) -> None:
    """It is made with a key, told with its end, and counts against the key's places."""
    url = f"http://127.0.0.1:{serving.port}/v1/realtime/client_secrets"
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            url, headers={"Authorization": "Bearer secret"}, json={"expires_after": {"seconds": 600}}
        ) as answer,
    ):
        made = await answer.json()
    assert made["value"].startswith("ek_")
    offered = ["realtime", f"openai-insecure-api-key.{made['value']}"]
    where = f"ws://127.0.0.1:{serving.port}/plain"
    async with connect(where, subprotocols=offered), connect(where, subprotocols=offered) as client:
        assert client.subprotocol == "realtime"
        assert (await refusal(serving, subprotocols=offered)).status_code == 429
    forged = [*offered[:1], f"{offered[1][:-2]}xx"]
    assert (await refusal(serving, subprotocols=forged)).status_code == 401


@pytest.mark.parametrize(
    ("state", "code", "wait"),
    [
        (None, "no_workers", "1"),
        ({"depth": 9, "capacity": 9, "estimated_wait": 6.2}, "overloaded", "7"),
        ({"estimated_wait": 31.0, "max_latency": 20.0}, "overloaded", "31"),
        ({"streams": 5, "max_streams": 5}, "overloaded", "1"),
        ({"estimated_wait": 1000.0, "max_latency": 20.0}, "overloaded", "120"),
    ],
)
async def test_nobody_is_let_in_without_a_worker_that_has_room(
    nats_server: NatsServer, state: Mapping[str, float] | None, code: str, wait: str
) -> None:
    """503 says how long it may take, by what the workers say."""
    async with worker(nats_server.url, **(state or {})) as busy, gateway(nats_server.url) as serving:
        if state is None:
            await busy.close()
            while serving.workers.all:
                await serving.workers.ask()
                await asyncio.sleep(0.05)
        response = await refusal(serving)
        assert (response.status_code, error_of(response), response.headers["Retry-After"]) == (503, code, wait)


async def test_gateway_is_full_at_its_limit(nats_server: NatsServer) -> None:
    async with (
        worker(nats_server.url),
        gateway(nats_server.url, max_connections=1) as serving,
        connect(f"ws://127.0.0.1:{serving.port}/plain"),
    ):
        response = await refusal(serving)
        assert (response.status_code, error_of(response)) == (503, "too_many_connections")


async def test_protocol_refuses_in_its_own_words(serving: Gateway) -> None:
    """What an opener raises is the answer; a path without sockets is 404."""
    header = {"Authorization": "Bearer secret"}
    response = await refusal(serving, "/plain?refuse", additional_headers=header)
    assert (response.status_code, error_of(response)) == (400, "refused")
    assert (await refusal(serving, "/nothing")).status_code == 404


async def test_http_is_served_on_the_same_port(serving: Gateway) -> None:
    """Probes need no key; what is wrong is told as JSON, with a request's id."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{serving.port}") as session:
        for path in ("/livez", "/readyz", "/health"):
            async with session.get(path) as answer:
                assert (answer.status, (await answer.json())["status"]) == (200, "ok")
        async with session.get("/nothing", headers={"x-request-id": "mine"}) as answer:
            assert (answer.status, answer.headers["x-request-id"]) == (404, "mine")
        async with session.delete("/livez") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET")
        async with session.post("/v1/realtime/client_secrets") as answer:
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        async with session.get("/plain") as answer:
            assert "WebSocket" in (await answer.json())["error"]["message"]


async def test_health_is_503_without_a_worker(nats_server: NatsServer) -> None:
    """The gateway itself is alive and ready: a restart of it would not help."""
    async with (
        gateway(nats_server.url) as serving,
        aiohttp.ClientSession(f"http://127.0.0.1:{serving.port}") as session,
    ):
        async with session.get("/health") as answer:
            assert (answer.status, (await answer.json())["reason"]) == (503, "no worker is there")
        async with session.get("/readyz") as answer:
            assert answer.status == 200


HANDSHAKE = {
    "Host": "x",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
    "Sec-WebSocket-Version": "13",
    "Authorization": "secret",
}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Sec-WebSocket-Version": "8"}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Connection": "close"}, 426),
        ({"X-Long": "x" * 20_000}, 431),
        ({}, 101),
    ],
)
async def test_bad_handshake_is_refused_with_its_reason(serving: Gateway, change: dict[str, str], status: int) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in (HANDSHAKE | change).items())
    first = await exchange(serving, f"GET /plain HTTP/1.1\r\n{head}\r\n".encode())
    assert first.startswith(f"HTTP/1.1 {status} ".encode())


async def test_head_may_come_in_pieces_and_frames_right_after_it(serving: Gateway) -> None:
    """A client need not wait for the answer, nor fill packets."""
    head = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE.items())
    request = f"GET /plain HTTP/1.1\r\n{head}\r\n".encode() + b"\x81\x85\0\0\0\0ticks"
    reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
    for start in range(0, len(request), 37):
        writer.write(request[start : start + 37])
        await asyncio.sleep(0)
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(3) == b"\x81\x010"
    writer.close()


async def exchange(serving: Gateway, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
    writer.write(request)
    first = await reader.readline()
    writer.close()
    return first


async def test_garbage_gets_a_400_and_no_more(serving: Gateway) -> None:
    assert (await exchange(serving, b"\0\1\2 hello\r\n\r\n")).startswith(b"HTTP/1.")


async def test_every_metric_is_served_where_prometheus_scrapes(nats_server: NatsServer) -> None:
    """The gateway's own and those of its process, under the names of docs/metrics.md."""
    options = TelemetryOptions(metrics_exporter="prometheus")
    async with (
        worker(nats_server.url),
        gateway(nats_server.url, telemetry=options) as serving,
        connect(f"ws://127.0.0.1:{serving.port}/plain"),
        aiohttp.ClientSession() as session,
    ):
        await refusal(serving, "/nothing")
        async with connect(f"ws://127.0.0.1:{serving.port}/plain"):
            pass
        for _ in range(2):  # the first one is a request that the second one tells of
            async with session.get(f"http://127.0.0.1:{serving.port}/metrics") as answer:
                text = await answer.text()
    typed = set(re.findall(r"^# TYPE (\S+) \S+$", text, re.MULTILINE))
    assert {scraped_name(name) for name in GATEWAY} <= typed
    assert {"process_memory_usage_bytes", "transcriber_nats_connected_ratio"} <= typed
    assert "transcriber_gateway_connections 1.0" in text
    assert 'transcriber_gateway_opened_total{path="/plain"} 2.0' in text
    assert 'transcriber_gateway_refused_total{status="404"} 1.0' in text
    assert 'transcriber_gateway_requests_total{path="/metrics",status="200"} 1.0' in text


async def test_websocket_opens_on_a_connection_that_served_a_request(serving: Gateway) -> None:
    """Proxies use their connections again. Frames may follow the head at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    assert b"ok" in await reader.readexactly(16)
    head = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE.items())
    writer.write(f"GET /plain HTTP/1.1\r\n{head}\r\n".encode() + b"\x81\x85\0\0\0\0ticks")
    assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(3) == b"\x81\x010"
    writer.write(b"\x88\x82\0\0\0\0\x03\xe8")
    assert await reader.read() == b"\x88\x02\x03\xe8"
    writer.close()
    async with asyncio.timeout(5):
        while serving.figures.connections:  # noqa: ASYNC110 - figures have no event
            await asyncio.sleep(0.01)
