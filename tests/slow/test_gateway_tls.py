"""Two hundred live clients over wss, and what that costs the gateway.

pytest -m slow -s tests/slow/test_gateway_tls.py
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from pathlib import Path

import nats
import psutil
import pytest
from command import Command
from harness import NatsServer
from identities import CERTIFICATE, KEY
from live_clients import connected, speaking

from benchmarks.gateway_worker import FIGURES, RATE

STREAMS = int(os.environ.get("GATEWAY_TLS_STREAMS", "200"))
SECONDS = float(os.environ.get("GATEWAY_TLS_SECS", "20"))
CHUNK_SECS = 0.1

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def speak(server: NatsServer, tls: ssl.SSLContext | None, **environ: str) -> tuple[float, float]:
    """Speak on all streams for a while. Returns the gateway's CPU seconds for a second of audio, and for connecting."""
    async with Command("gateway", NATS_URL=server.url, GATEWAY_PORT="0", **environ) as gateway:
        port = json.loads(await gateway.printed('"message": "ready"'))["port"]
        process = psutil.Process(gateway.process.pid)

        def spent() -> float:
            times = process.cpu_times()
            return float(times.user + times.system)

        begin = spent()
        clients = await connected(port, STREAMS, tls, RATE)
        connecting, stop = spent() - begin, asyncio.Event()
        asyncio.get_running_loop().call_later(SECONDS, stop.set)
        begin = spent()
        await speaking(clients, bytes(2 * RATE * 10), stop, CHUNK_SECS)
        live = spent() - begin
        for client in clients:
            client.end()
        assert set(await asyncio.gather(*(client.closed for client in clients))) == {1000}
        gateway.process.terminate()
        assert await gateway.ended() == 0
    for client in clients:
        assert client.told.ended is not None
        assert client.told.ended["received"] == pytest.approx(client.sent, abs=0.01)
    return live / sum(client.sent for client in clients), connecting / STREAMS


async def test_live_clients_over_tls_lose_nothing(nats_server: NatsServer, tmp_path: Path) -> None:
    """The worker is a stub, which checks every offset."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text(CERTIFICATE)
    key.write_text(KEY)
    trust = ssl.create_default_context(cafile=str(cert))
    stub = Command(program=("-m", "benchmarks.gateway_worker"), NATS_URL=nats_server.url)
    async with stub as worker, await nats.connect(nats_server.url) as client:
        await worker.printed("ready")
        plain = await speak(nats_server, None)
        secure = await speak(nats_server, trust, GATEWAY_TLS_CERT=str(cert), GATEWAY_TLS_KEY=str(key))
        found = json.loads((await client.request(FIGURES, timeout=10)).data)
    print(
        f"\n{STREAMS} streams, chunks of {CHUNK_SECS * 1000:g} ms: {plain[0] * 1000:.2f} ms of CPU a second of audio "
        f"plain, {secure[0] * 1000:.2f} over TLS; to connect {plain[1] * 1000:.1f} ms and {secure[1] * 1000:.1f} ms; "
        f"{found['chunks']} chunks, {found['lost']} lost",
        file=sys.stderr,
    )
    assert found["lost"] == 0
