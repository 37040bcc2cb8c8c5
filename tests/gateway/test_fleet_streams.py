"""Live clients of a gateway with `FLEET`, and two real daemons that share the partitions."""

from __future__ import annotations

import asyncio
import json
from difflib import SequenceMatcher
from typing import Any

import pytest
from fleets import FLEET, member, set_up_fleet, status, transcriber
from gateways import gateway
from harness import Daemon, NatsServer, Speech, s16
from websockets.asyncio.client import connect

from transcriber.gateway.service import Gateway

CLIENTS = 8  # so many that both daemons have some: the chance that one has none is 1 in 128


async def talk(serving: Gateway, speech: Speech) -> list[dict[str, Any]]:
    """Speak in real time; returns everything that was told."""
    async with connect(f"ws://127.0.0.1:{serving.port}/plain?eager&rate={speech.rate}") as client:
        pcm, step, loop = s16(speech.samples), speech.rate // 5, asyncio.get_running_loop()
        begin = loop.time()
        for number, start in enumerate(range(0, len(pcm), step)):
            await asyncio.sleep(max(0.0, begin + number / 10 - loop.time()))
            await client.send(pcm[start : start + step])
        await client.send("end")
        return [json.loads(text) async for text in client]


async def test_fleet_shares_a_gateways_clients(server: NatsServer, heldout: Speech) -> None:
    """Each stream is heard by the owner of its partition and by nobody else, also after its partition has moved."""
    speech = heldout.cut(0, 4)
    await set_up_fleet(server.url, live=True)
    async with Daemon(server.url, **member()) as first, Daemon(server.url, **member()) as second:
        await second.logged("joined the fleet")
        members = (await status(server.url))["members"]
        while not all(m["partitions"] for m in members):
            await asyncio.sleep(0.5)
            members = (await status(server.url))["members"]
        async with gateway(server.url, fleet=FLEET) as serving:
            talking = [asyncio.create_task(talk(serving, speech)) for _ in range(CLIENTS)]
            await asyncio.sleep(2)
            carried = [daemon.streams for daemon in await serving.workers.ask()]
            assert (await transcriber(server.url, "fleet", "drain", members[0]["name"]))[0] == 0
            heard = await asyncio.gather(*talking)
        assert [await daemon.stop() for daemon in (first, second)] == [0, 0]
    assert sum(carried) == CLIENTS
    assert min(carried) > 0
    for told in heard:
        ended = told[-1]
        assert (ended["type"], ended["gap"]) == ("ended", {})
        assert ended["received"] == pytest.approx(len(speech.samples) / speech.rate, abs=0.01)
        said = " ".join(m["text"] for m in told if m["type"] == "final")
        assert SequenceMatcher(None, said.split(), speech.words.split()).ratio() > 0.9  # a move may cut a word in two
