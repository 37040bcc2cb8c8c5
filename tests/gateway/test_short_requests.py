"""Short requests on one connection: their order, their refusals, and what becomes of them when somebody leaves."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from audio_files import encoded
from gateways import gateway
from harness import PATIENCE, NatsServer
from scripted_workers import Asked, ScriptedWorker

from transcriber.gateway.service import Gateway

RATE = 16_000


def request(seconds: float, path: str = "/transcribe", audio: str | None = None) -> bytes:
    """A request whose text is its length."""
    told = base64.b64encode(encoded(np.zeros(round(RATE * seconds), np.float32), RATE)).decode()
    body = json.dumps({"audio_data": told if audio is None else audio}).encode()
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    """The next answer: status, headers, JSON."""
    async with asyncio.timeout(PATIENCE):
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(first.split()[1]), headers, json.loads(await reader.readexactly(int(headers["content-length"])))


class Slow:
    """Tells how many samples there are, once it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.may.set()
        self.begun = asyncio.Event()

    async def __call__(self, asked: Asked) -> str:
        self.begun.set()
        await self.may.wait()
        return str(len(asked.pcm) // 2)


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
async def serving(nats_server: NatsServer, slow: Slow) -> AsyncIterator[Gateway]:
    async with ScriptedWorker(nats_server.url, slow), gateway(nats_server.url) as running:
        yield running


@asynccontextmanager
async def connected(serving: Gateway) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
    try:
        yield reader, writer
    finally:
        writer.close()


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
async def test_requests_of_a_connection_are_answered_in_order(serving: Gateway, slow: Slow, apart: bool) -> None:
    """Also those that came before the one before was answered, and those that are not short."""
    requests = [
        request(0.1),
        request(0.2),
        b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n",
        request(0.3, "/transcribe?more"),
        request(0.4),
    ]
    async with connected(serving) as (reader, writer):
        slow.may.clear()
        for each in requests if apart else [b"".join(requests)]:
            writer.write(each)
            await writer.drain()
            await asyncio.sleep(0.05)
        slow.may.set()
        told = [(await answer(reader))[2] for _ in requests]
    assert [found.get("transcription") for found in told] == ["1600", "3200", None, "4800", "6400"]
    assert told[2]["total_processed"] == 2


async def test_refusal_has_its_shape_and_ends_the_connection(serving: Gateway) -> None:
    async with connected(serving) as (reader, writer):
        writer.write(request(0.1))
        assert (await answer(reader))[0] == 200
        writer.write(request(0.1, audio="?"))
        status, headers, told = await answer(reader)
        assert (status, told["status"], told["code"]) == (400, "failed", "invalid_value")
        assert headers["connection"] == "close"
        assert len(headers["x-request-id"]) == 32
        assert await reader.read() == b""
    assert serving.figures.requests == {("/transcribe", 200): 1, ("/transcribe", 400): 1}


async def test_page_of_another_site_is_refused(serving: Gateway) -> None:
    async with connected(serving) as (reader, writer):
        writer.write(request(0.1).replace(b"Host: x", b"Host: x\r\nOrigin: https://a.example"))
        status, _, told = await answer(reader)
    assert (status, told["error"]["code"]) == (403, "origin_not_allowed")


async def test_client_that_leaves_ends_its_request(serving: Gateway, slow: Slow) -> None:
    slow.may.clear()
    async with connected(serving) as (_, writer):
        writer.write(request(0.1))
        await slow.begun.wait()
        assert serving._site.count == 1
    async with asyncio.timeout(PATIENCE):
        while serving._site.count:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
    assert serving.figures.requests == {}


async def test_gateway_that_stops_answers_what_has_begun(serving: Gateway, slow: Slow) -> None:
    """And closes idle connections at once."""
    async with connected(serving) as (idle, other), connected(serving) as (reader, writer):
        other.write(request(0.2))
        assert (await answer(idle))[0] == 200
        slow.begun.clear()
        slow.may.clear()
        writer.write(request(0.1))
        await slow.begun.wait()
        stopping = asyncio.create_task(serving._shut_down(PATIENCE))
        assert await idle.read() == b""
        assert not stopping.done()
        slow.may.set()
        status, headers, told = await answer(reader)
        assert (status, headers["connection"], told["transcription"]) == (200, "close", "1600")
        assert await reader.read() == b""
        await stopping
