"""Wyoming's port where something is not as it should be: no room, no worker, a client that is silent or deaf."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from gateways import gateway
from harness import PATIENCE, NatsServer
from wyoming.asr import Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.ping import Ping

from transcriber.domain.errors import CannotStart
from transcriber.gateway import wyoming_door
from transcriber.gateway.service import Gateway

FORMAT = {"rate": 16_000, "width": 2, "channels": 1}


@contextlib.asynccontextmanager
async def client_of(serving: Gateway) -> AsyncIterator[AsyncClient]:
    async with AsyncClient.from_uri(f"tcp://127.0.0.1:{serving._door.port}") as client:
        yield client


async def next_event(client: AsyncClient) -> Event | None:
    async with asyncio.timeout(PATIENCE):
        return await client.read_event()


async def ping_and_never_read(serving: Gateway) -> None:
    async with client_of(serving) as client:
        client._reader._transport.pause_reading()
        while True:
            await client.write_event(Ping(text="x" * 60_000).event())


async def test_wyoming_client_too_many_hears_why(nats_server: NatsServer) -> None:
    """Whoever is connected stays."""
    async with gateway(nats_server.url, wyoming_port=0, max_connections=1) as serving, client_of(serving) as first:
        await first.write_event(Ping().event())
        assert await next_event(first) is not None
        async with client_of(serving) as second:
            event = await next_event(second)
            assert event is not None
            assert Error.from_event(event).text == "GATEWAY_MAX_CONNECTIONS=1 are open"
            assert await next_event(second) is None
        await first.write_event(Ping().event())
        assert await next_event(first) is not None


async def test_wyoming_command_is_answered_although_it_stops(nats_server: NatsServer) -> None:
    """No worker has heard it, and the gateway stops: an empty transcript, and why."""
    async with contextlib.AsyncExitStack() as stack:
        async with gateway(nats_server.url, wyoming_port=0) as serving:
            client = await stack.enter_async_context(client_of(serving))
            await client.write_event(AudioStart(**FORMAT).event())
            await client.write_event(AudioChunk(**FORMAT, audio=bytes(3200)).event())
            await client.write_event(AudioStop().event())
            await client.write_event(Ping().event())
            assert (await next_event(client)).type == "pong"  # type: ignore[union-attr]
        events = [await next_event(client) for _ in range(5)]
    assert [event and event.type for event in events] == [
        "error",
        "transcript-start",
        "transcript",
        "transcript-stop",
        None,
    ]
    assert Transcript.from_event(events[2]).text == ""


async def test_wyoming_client_that_is_silent_is_let_go(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection without a byte for minutes belongs to nobody."""
    monkeypatch.setattr(wyoming_door, "_IDLE_SECS", 0.1)
    async with gateway(nats_server.url, wyoming_port=0) as serving, client_of(serving) as client:
        assert await next_event(client) is None
        assert serving.figures.connections == 0


async def test_wyoming_client_that_never_reads_is_cut(nats_server: NatsServer) -> None:
    """What it does not read does not collect."""
    async with gateway(nats_server.url, wyoming_port=0) as serving:
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(ping_and_never_read(serving), PATIENCE)


async def test_wyoming_port_that_is_taken_is_named(nats_server: NatsServer) -> None:
    async with gateway(nats_server.url, wyoming_port=0) as serving:
        taken = serving._door.port
        with pytest.raises(CannotStart, match=f"GATEWAY_WYOMING_PORT={taken}"):
            async with gateway(nats_server.url, wyoming_port=taken):
                pass
