"""A gateway under hostile and broken peers: each is refused, honest clients notice nothing, and nothing is left behind.

GATEWAY_SOAK_SECS=3600 pytest -m slow -s tests/slow/test_gateway_soak.py
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import psutil
import pytest
from harness import QUICK, Daemon, NatsServer, Speech, free_port, s16
from hostile import Place
from websockets.asyncio.client import connect

GATEWAY = Path(__file__).parents[1] / "support" / "watched_gateway.py"
SECONDS = float(os.environ.get("GATEWAY_SOAK_SECS", "240"))
PAUSE_SECS = float(os.environ.get("GATEWAY_SOAK_PAUSE_SECS", "2"))  # between two rounds
HEAVY_EVERY = 10  # rounds between peers that cost seconds of CPU
WARM_UP_SECS = 90  # every kind of peer has been there, and the slow ones were cut
NOISE_BYTES = 3_000_000  # what malloc keeps of the largest request, and gives back at other times

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 600)]


class Held:
    """What the gateway holds, as it and the system tell."""

    def __init__(self, gateway: Daemon) -> None:
        self._gateway = gateway
        self._process = psutil.Process(gateway.process.pid)
        self.memory: list[int] = []
        self.files: list[int] = []

    def look(self) -> None:
        self.memory.append(self._process.memory_info().rss)
        self.files.append(self._process.num_fds())

    async def all(self) -> dict[str, int]:
        """Tasks, objects and connections; files."""
        said = len(self._gateway.records)
        self._gateway.process.send_signal(signal.SIGUSR1)
        while not (told := [r for r in self._gateway.records[said:] if r["message"] == "held"]):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        kinds = ("tasks", "objects", "sockets", "fronts", "requests")
        return {kind: told[-1][kind] for kind in kinds} | {"files": self._process.num_fds()}

    async def quiet(self) -> dict[str, int]:
        """The same, once no peer is left."""
        async with asyncio.timeout(200):
            while (held := await self.all())["sockets"] + held["fronts"] + held["requests"]:  # noqa: ASYNC110
                await asyncio.sleep(1)
        await asyncio.sleep(3)
        return await self.all()


class Peers:
    """Sends peers, and counts what became of them."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.met: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self._away: set[asyncio.Task[None]] = set()

    async def meet(self, peers: dict[hostile.Peer, str]) -> None:
        await asyncio.gather(*(self._meet(peer, wanted) for peer, wanted in peers.items()))

    def send(self, peers: dict[hostile.Peer, str]) -> None:
        """Do not wait for them."""
        task = asyncio.create_task(self.meet(peers))
        self._away.add(task)
        task.add_done_callback(self._away.discard)

    async def all_back(self) -> None:
        await asyncio.gather(*self._away)

    async def _meet(self, peer: hostile.Peer, wanted: str) -> None:
        name = getattr(peer, "__name__", "")
        try:
            answer = await peer(self._place)
        except Exception as error:  # noqa: BLE001 - it is reported
            answer = f"{type(error).__name__}: {error}"
        self.met[name] += 1
        if wanted not in answer:
            self.wrong.append(f"{name}: {answer[:200]}, and not {wanted}")


async def honest(place: Place, speech: Speech) -> float:
    """A live client whose words all come; seconds from its last audio to its end."""
    async with connect(f"{place.socket}/v2/decode/stream/any?sample_rate={speech.rate}") as client:
        pcm = s16(speech.samples)
        for start in range(0, len(pcm), 16_000):
            await client.send(pcm[start : start + 16_000])
        began = time.monotonic()
        await client.send('{"type": "end"}')
        told: list[dict[str, Any]] = [json.loads(message) async for message in client]
    assert " ".join(m["transcription"] for m in told if m["type"] == "final" and m["transcription"]) == speech.words
    assert (told[-1]["type"], told[-1]["gap"]) == ("ended", {})
    return time.monotonic() - began


def trend(figures: list[int]) -> tuple[float, float]:
    """By how much they rise from the first to the last, on a straight line; and how far they stray from it."""
    if len(figures) < 3:
        return float(figures[-1] - figures[0]), 0.0
    places = np.arange(len(figures))
    slope, at_first = np.polyfit(places, figures, 1)
    return float(slope * len(figures)), float(np.std(figures - (at_first + slope * places)))


async def test_hostile_peers_leave_nothing_behind(nats_server: NatsServer, demo_speech: Speech) -> None:
    """Every one is answered as it must be; tasks, objects and files are as before, and memory does not grow."""
    speech, wyoming = demo_speech.cut(0, 2), free_port()
    environ = {"GATEWAY_PORT": "0", "GATEWAY_WYOMING_PORT": str(wyoming)}
    async with Daemon(nats_server.url, **QUICK), Daemon(nats_server.url, script=GATEWAY, **environ) as gateway:
        place = Place((await gateway.logged("ready"))["port"], wyoming)
        peers, held, waits = Peers(place), Held(gateway), list[float]()

        async def rounds(seconds: float) -> None:
            begin, number = time.monotonic(), 0
            while time.monotonic() - begin < seconds:
                peers.send(dict(hostile.SLOW))
                await peers.meet(dict(hostile.HEAVY if number % HEAVY_EVERY == 0 else {}) | dict(hostile.QUICK))
                waits.append(await honest(place, speech))
                await asyncio.sleep(PAUSE_SECS)
                held.look()
                number += 1
            await peers.all_back()

        await rounds(min(WARM_UP_SECS, SECONDS / 2))
        before = await held.quiet()
        held.memory.clear()
        await rounds(SECONDS)
        after = await held.quiet()
        loud = [r for r in gateway.records if r["level"] in {"ERROR", "CRITICAL"}]
        code = await gateway.stop()
    growth, strays = trend(held.memory)
    print(
        f"\n{peers.met.total()} peers of {len(peers.met)} kinds in {SECONDS:g} s: {dict(peers.met)}\n"
        f"honest clients {len(waits)}, the slowest answered in {max(waits):.1f} s; before {before}, after {after}\n"
        f"RSS {min(held.memory) / 1e6:.1f} to {max(held.memory) / 1e6:.1f} MB, {growth / 1e6:+.2f} MB, "
        f"straying by {strays / 1e6:.2f} MB; answered otherwise: {dict(collections.Counter(peers.wrong))}"
    )
    assert not peers.wrong
    assert not loud, loud[:3]
    assert (after["tasks"], after["files"]) == (before["tasks"], before["files"])
    assert after["objects"] - before["objects"] < 1000, "objects are kept"
    assert growth <= max(3 * strays, NOISE_BYTES)
    assert code == 0
