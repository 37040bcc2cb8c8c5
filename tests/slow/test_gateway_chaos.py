"""Workers that die at random under clients of a gateway: each client goes on, and every lost second is told.

pytest -m slow -s tests/slow/test_gateway_chaos.py
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from typing import Any

import pytest
from gateways import gateway
from harness import QUICK, Daemon, NatsServer, Speech, s16
from websockets.asyncio.client import connect

from transcriber.gateway import bridge

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SEED = 20_261_130
CLIENTS = 20
FAULTS = 4
SECONDS = 60
AGAIN_SECS = 20.0  # from a fault to a client's next text: a new worker loads its model, and hears a sentence to its end


async def speak(port: int, speech: Speech, stop: asyncio.Event) -> list[dict[str, Any]]:
    """Say the sentences again and again in real time; returns what was told, with the moments."""
    pcm, heard = s16(speech.samples), []
    step = speech.rate // 10 * 2
    async with connect(f"ws://127.0.0.1:{port}/plain?eager&rate={speech.rate}") as client:

        async def listen() -> None:
            async for message in client:
                heard.append(json.loads(message) | {"at": asyncio.get_running_loop().time()})  # noqa: PERF401 - as it comes

        listening = asyncio.create_task(listen())
        begin, sent = asyncio.get_running_loop().time(), 0
        while not stop.is_set():
            start = sent % (len(pcm) - step)
            await client.send(pcm[start - start % 2 : start - start % 2 + step])
            sent += step
            await asyncio.sleep(max(0.0, begin + sent / 2 / speech.rate - asyncio.get_running_loop().time()))
        await client.send("end")
        await listening
    heard[-1]["sent"] = sent / 2 / speech.rate
    return heard


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_clients_outlive_their_workers(
    nats_server: NatsServer, heldout: Speech, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed or stopped, and started again. Accounts add up to what was sent, to the second."""
    monkeypatch.setattr(bridge, "AWAY_SECS", 60.0)  # on a busy machine a start takes longer than clients would wait
    r, stop, moments = random.Random(SEED), asyncio.Event(), []
    loop = asyncio.get_running_loop()
    speech = heldout.cut(0, 7)
    environ = QUICK | {"PARTIAL_INTERVAL_SECS": "0"}
    async with gateway(nats_server.url, shutdown_grace=20.0) as serving:
        async with Daemon(nats_server.url, **environ) as first:
            while not serving.workers.all:
                await asyncio.sleep(0.1)
                await serving.workers.ask()
            talking = [asyncio.create_task(speak(serving.port, speech, stop)) for _ in range(CLIENTS)]
            await asyncio.sleep(10)
            moments.append(loop.time())
            first.process.send_signal(number)
            await first.ended()
        for _ in range(FAULTS - 1):
            async with Daemon(nats_server.url, **environ) as daemon:
                await asyncio.sleep(r.uniform(AGAIN_SECS, AGAIN_SECS + 3))
                moments.append(loop.time())
                daemon.process.send_signal(number)
                await daemon.ended()
        async with Daemon(nats_server.url, **environ):
            await asyncio.sleep(AGAIN_SECS)
            stop.set()
            told = await asyncio.gather(*talking)
    lost = []
    for heard in told:
        ended = heard[-1]
        assert ended["type"] == "ended"
        total = ended["transcribed"] + ended["silent"] + sum(ended["gap"].values())
        assert ended["received"] == pytest.approx(ended["sent"], abs=0.01)
        assert total == pytest.approx(ended["received"], abs=0.01)
        refused = sum(m["end"] - m["start"] for m in heard if m["type"] == "refused")
        assert refused == pytest.approx(ended["gap"].get("worker_lost", 0.0), abs=0.01)
        lost.append(refused)
        texts = [m["at"] for m in heard if m["type"] == "final" and m["text"]]
        assert all(any(moment < at < moment + AGAIN_SECS for at in texts) for moment in moments)
    print(f"{number.name}: {FAULTS} faults, {CLIENTS} clients, lost {sum(lost) / CLIENTS:.2f} s each")
