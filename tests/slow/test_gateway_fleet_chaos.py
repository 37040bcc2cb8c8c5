"""Hundreds of live clients of a gateway, and a fleet whose members are killed at random and started again.

pytest -m slow -s tests/slow/test_gateway_fleet_chaos.py

The engine is a stub: so many streams of speech are more than two cores can transcribe. All else is real.
GATEWAY_CHAOS_SECS and GATEWAY_CHAOS_STREAMS change length and size, GATEWAY_CHAOS_AWAY_SECS how long a member is away.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from chaos import jetstream_server
from command import Command
from fleets import FLEET, member, set_up_fleet
from harness import STUB, Daemon, Speech, s16
from live_clients import RATE, LiveClient, connected, speaking

SECS = float(os.environ.get("GATEWAY_CHAOS_SECS", "120"))
STREAMS = int(os.environ.get("GATEWAY_CHAOS_STREAMS", "500"))
AWAY_SECS = float(os.environ.get("GATEWAY_CHAOS_AWAY_SECS", "0"))
MEMBERS = int(os.environ.get("GATEWAY_CHAOS_MEMBERS", "2"))
EVERY_SECS = 20.0
PATIENCE = 180.0  # seconds for a start or a stop: the machine may be busy
SEED = 20_261_201

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECS + 600)]


class Workers:
    """The fleet's members, one of which is killed now and then."""

    def __init__(self, url: str) -> None:
        self._url = url
        speed = {"STUB_SECS": "0.001", "WHISPER_RTF": "0.0005"}  # so that either member may carry all streams
        self._settings = [member(PARTIAL_INTERVAL_SECS="1", **speed) for _ in range(MEMBERS)]
        self._running: list[Daemon] = []
        self.faults: list[str] = []

    async def _start(self, settings: dict[str, str]) -> Daemon:
        daemon = Daemon(self._url, script=STUB, wait=False, **settings)
        return await daemon.__aenter__()

    async def start(self) -> None:
        self._running = [await self._start(settings) for settings in self._settings]
        for daemon in self._running:
            await daemon.logged("ready", PATIENCE)

    async def disturb(self, clients: list[LiveClient], seconds: float) -> dict[str, list[float]]:
        """Kill or stop a member every now and then, and start it again; until each client has an answer again."""
        r, until, waits = random.Random(SEED), time.monotonic() + seconds, dict[str, list[float]]()
        numbers: list[signal.Signals] = []
        while time.monotonic() < until:
            numbers = numbers or r.sample((signal.SIGKILL, signal.SIGTERM), 2)  # both equally often, in random order
            number, place = numbers.pop(), r.randrange(MEMBERS)
            daemon = self._running[place]
            for client in clients:
                client.expect()
                client.waits.clear()
            began = time.monotonic()
            daemon.process.send_signal(number)
            await daemon.ended(PATIENCE)
            gone = time.monotonic() - began
            await asyncio.sleep(AWAY_SECS)
            self._running[place] = again = await self._start(self._settings[place])
            await again.logged("ready", PATIENCE)
            ready = time.monotonic() - began
            await asyncio.sleep(max(0.0, EVERY_SECS - (time.monotonic() - began)))
            found = [client.waits[0] if client.waits else EVERY_SECS for client in clients]
            waits.setdefault(number.name, []).extend(found)
            p50, p99, most = np.percentile(found, [50, 99, 100])
            self.faults.append(
                f"{number.name}: gone after {gone:.1f} s, ready after {ready:.1f} s; "
                f"answered again p50 {p50:.1f} p99 {p99:.1f} max {most:.1f} s"
            )
            print(self.faults[-1], flush=True)
        return waits

    async def stop(self) -> None:
        for daemon in self._running:
            await daemon.__aexit__()


def check(client: LiveClient) -> None:
    """The account adds up to what was sent, and every lost second was told where it lies."""
    ended = client.told.ended
    assert ended is not None, client.told
    assert ended["received"] == pytest.approx(client.sent, abs=0.01)
    settled = ended["transcribed"] + ended["silent"] + sum(ended["gap"].values())
    assert settled == pytest.approx(ended["received"], abs=0.01)
    assert client.told.gaps == pytest.approx(ended["gap"], abs=0.01)
    assert client.told.transcribed >= ended["transcribed"] - 0.01  # more, where a text came after its gap


async def test_streams_outlive_their_workers(tmp_path: Path, heldout: Speech) -> None:
    """Killed or stopped at random: every client has an answer again, and its account adds up."""
    speech = heldout.cut(0, 7)
    pcm = s16(soxr.resample(speech.samples, speech.rate, RATE, "HQ"))
    with jetstream_server(tmp_path) as server:
        await set_up_fleet(server.url, live=True)
        workers = Workers(server.url)
        await workers.start()
        environ: dict[str, Any] = {"NATS_URL": server.url, "GATEWAY_PORT": "0", "FLEET": FLEET.name}
        async with Command("gateway", **environ) as gateway:
            port = json.loads(await gateway.printed('"message": "ready"'))["port"]
            clients = await connected(port, STREAMS)
            stop = asyncio.Event()
            talking = asyncio.create_task(speaking(clients, pcm, stop))
            await asyncio.sleep(10)
            assert all(client.told.at and not client.closed.done() for client in clients)
            try:
                waits = await workers.disturb(clients, SECS)
                stop.set()
                late = await talking
                for client in clients:
                    client.end()
                async with asyncio.timeout(PATIENCE):
                    codes = await asyncio.gather(*(client.closed for client in clients))
            finally:
                await workers.stop()
    lost: dict[str, float] = {}
    for client in clients:
        for reason, seconds in client.told.gaps.items():
            lost[reason] = lost.get(reason, 0.0) + seconds
    sent = sum(client.sent for client in clients)
    print(
        f"\n{STREAMS} streams, {MEMBERS} members, {SECS:g} s, away {AWAY_SECS:g} s; the sender was {late:.2f} s late\n"
        f"lost of {sent:.0f} s: { {reason: round(seconds, 1) for reason, seconds in lost.items()} }"
    )
    assert set(codes) == {1000}
    for client in clients:
        check(client)
    assert max(max(found) for found in waits.values()) < EVERY_SECS
