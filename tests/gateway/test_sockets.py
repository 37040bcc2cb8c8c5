"""WebSockets through a real gateway, server and daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gateways import gateway
from harness import QUICK, Daemon, NatsServer, Speech, s16
from websockets.asyncio.client import connect

from transcriber.models import store


async def test_speech_sent_over_a_websocket_comes_back_as_text(tmp_path: Path) -> None:
    """Eight sentences in, their words out, every second accounted for, and the close that the dialect wants."""
    speech = Speech.load(store.bundled("demo.flac").with_suffix(""))
    with NatsServer(tmp_path) as server:
        async with (
            Daemon(server.url, **QUICK),
            gateway(server.url) as serving,
            connect(f"ws://127.0.0.1:{serving.port}/plain?eager&rate={speech.rate}") as client,
        ):
            pcm = s16(speech.samples)
            for start in range(0, len(pcm), 32_000):
                await client.send(pcm[start : start + 32_000])
            await client.send("end")
            heard = [json.loads(message) async for message in client]
    assert client.close_code == 1000
    finals = [m["text"] for m in heard if m["type"] == "final"]
    assert " ".join(filter(None, finals)) == speech.words
    ended = heard[-1]
    assert ended["type"] == "ended"
    assert ended["gap"] == {}
    assert ended["received"] == pytest.approx(len(speech.samples) / speech.rate, abs=0.01)
