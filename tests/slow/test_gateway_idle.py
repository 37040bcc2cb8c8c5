"""A thousand clients that say nothing for ten minutes: none is dropped, all are pinged, and the gateway does not grow.

GATEWAY_IDLE_SECS=60 pytest -m slow -s tests/slow/test_gateway_idle.py
"""

from __future__ import annotations

import asyncio
import json
import os

import psutil
import pytest
from command import Command
from gateways import worker
from harness import NatsServer
from live_clients import LiveClient, connected

CLIENTS = 1000
SECONDS = float(os.environ.get("GATEWAY_IDLE_SECS", "600"))
EVERY_SECS = 10.0  # between two looks
TURNS = 10  # looks, in which every client pings once
SETTLED = min(6, round(SECONDS / EVERY_SECS) - 1)  # looks, in which every client was pinged twice
PING_SECS = 30.0  # the gateway's 20, and a second until it looks; it begins again at each ping of the client's own
NOISE_BYTES = 1_000_000  # a kilobyte a client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 300)]


async def test_idle_clients_stay_and_cost_nothing_more(nats_server: NatsServer) -> None:
    """Pings come from the gateway, and pings of clients are answered."""
    environ = {"NATS_URL": nats_server.url, "GATEWAY_PORT": "0"}
    async with worker(nats_server.url), Command("gateway", **environ) as gateway:
        port = json.loads(await gateway.printed('"message": "ready"'))["port"]
        process = psutil.Process(gateway.process.pid)
        empty = process.memory_info().rss
        clients = await connected(port, CLIENTS)
        memory, files, cpu = list[int](), list[int](), process.cpu_times()
        for look in range(round(SECONDS / EVERY_SECS)):
            await asyncio.sleep(EVERY_SECS)
            memory.append(process.memory_info().rss)
            files.append(process.num_fds())
            ping(clients[look % TURNS :: TURNS])
        spent = sum(process.cpu_times()[:2]) - sum(cpu[:2])
        gone = sum(client.closed.done() for client in clients)
        await asyncio.sleep(1)
        for client in clients:
            client.transport.abort()
        gateway.process.terminate()
        assert await gateway.ended() == 0
    pings = [client.pings for client in clients]
    print(
        f"\n{CLIENTS} idle for {SECONDS:g} s: {gone} dropped, {min(pings)} to {max(pings)} pings each, "
        f"{(memory[0] - empty) / 1e6:.1f} MB for them, {(memory[-1] - memory[SETTLED]) / 1e6:+.2f} MB in the end, "
        f"{spent:.1f} s of CPU"
    )
    assert gone == 0
    assert min(pings) >= SECONDS // PING_SECS - 1
    asked = [len(range(place, len(memory), TURNS)) for place in range(TURNS)]
    assert [client.pongs for client in clients] == [asked[place % TURNS] for place in range(CLIENTS)]
    assert memory[-1] - memory[SETTLED] < NOISE_BYTES
    assert len(set(files)) == 1


def ping(clients: list[LiveClient]) -> None:
    for client in clients:
        client.send(b"still there?", 9)
