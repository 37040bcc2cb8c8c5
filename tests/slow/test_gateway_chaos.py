"""Workers that die at random under clients of a gateway: each client goes on, and every lost second is told.

pytest -m slow -s tests/slow/test_gateway_chaos.py
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
from gateways import gateway
from harness import QUICK, Daemon, NatsServer, Speech, s16
from websockets.asyncio.client import connect

from transcriber.gateway import bridge

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CLIENTS = 20
FAULTS = 4
PATIENCE = 120.0  # seconds, on a busy machine, until every client has a text again


class Speaker:
    """A client that says the same sentences again and again in real time, and keeps what it is told."""

    def __init__(self, port: int, speech: Speech) -> None:
        self._url = f"ws://127.0.0.1:{port}/plain?eager&rate={speech.rate}"
        self._pcm = s16(speech.samples)
        self._rate = speech.rate
        self.heard: list[dict[str, Any]] = []
        self.texts = 0
        self.sent = 0.0  # seconds

    async def talk(self, stop: asyncio.Event) -> None:
        """Talk until the event, and then until the session has ended."""
        loop, step = asyncio.get_running_loop(), self._rate // 10 * 2
        # While the gateway does not read, it does not answer pings either.
        async with connect(self._url, ping_timeout=None) as client:
            listening = asyncio.create_task(self._listen(client))
            begin, place = loop.time(), 0
            while not stop.is_set():
                await client.send(self._pcm[place : place + step])
                place = place + step if place + 2 * step <= len(self._pcm) else 0
                self.sent += 0.1
                await asyncio.sleep(max(0.0, begin + self.sent - loop.time()))
            await client.send("end")
            await listening

    async def _listen(self, client: Any) -> None:
        async for text in client:
            self.heard.append(message := json.loads(text))
            self.texts += message["type"] == "final" and bool(message["text"])


async def until(happened: Callable[[], bool]) -> float:
    """Wait; returns the seconds that it took."""
    begin = asyncio.get_running_loop().time()
    async with asyncio.timeout(PATIENCE):
        while not happened():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.1)
    return asyncio.get_running_loop().time() - begin


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_clients_outlive_their_workers(
    nats_server: NatsServer, heldout: Speech, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed or stopped, and started again: every client gets text again, and its account adds up to what it sent."""
    monkeypatch.setattr(bridge, "AWAY_SECS", PATIENCE)  # on a busy machine a start may take longer than clients wait
    environ, speech, again = QUICK | {"PARTIAL_INTERVAL_SECS": "0"}, heldout.cut(0, 7), []
    async with gateway(nats_server.url, shutdown_grace=20.0) as serving:
        speakers = [Speaker(serving.port, speech) for _ in range(CLIENTS)]
        stop, talking = asyncio.Event(), list[asyncio.Task[None]]()
        for fault in range(FAULTS + 1):
            async with Daemon(nats_server.url, **environ) as daemon:
                while not await serving.workers.ask():  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.1)
                talking = talking or [asyncio.create_task(speaker.talk(stop)) for speaker in speakers]
                before = [speaker.texts for speaker in speakers]
                again.append(await until(lambda b=before: all(s.texts > n for s, n in zip(speakers, b, strict=True))))
                assert not any(task.done() for task in talking)
                if fault < FAULTS:
                    daemon.process.send_signal(number)
                    await daemon.ended()
                else:
                    stop.set()
                    await asyncio.gather(*talking)
    for speaker in speakers:
        ended = speaker.heard[-1]
        assert ended["type"] == "ended"
        assert ended["received"] == pytest.approx(speaker.sent, abs=0.01)
        settled = ended["transcribed"] + ended["silent"] + sum(ended["gap"].values())
        assert settled == pytest.approx(ended["received"], abs=0.01)
        refused = sum(m["end"] - m["start"] for m in speaker.heard if m["type"] == "refused")
        assert refused == pytest.approx(ended["gap"].get("worker_lost", 0.0), abs=0.01)
    lost = sum(s.heard[-1]["gap"].get("worker_lost", 0.0) for s in speakers) / CLIENTS
    took = ", ".join(f"{seconds:.1f}" for seconds in again[1:])
    print(
        f"{number.name}: lost {lost:.1f} s of {speakers[0].sent:.0f} each; every client had text again after {took} s"
    )
