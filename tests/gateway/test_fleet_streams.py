"""Live clients of a gateway with `FLEET`, and two real daemons that share the partitions."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from difflib import SequenceMatcher
from typing import Any

import nats
import pytest
from fleets import FLEET, member, set_up_fleet, status, transcriber, until_seen
from gateways import gateway, worker
from harness import PATIENCE, Daemon, NatsServer, Speech, s16
from nats.aio.msg import Msg
from websockets.asyncio.client import connect

from transcriber.gateway.service import Gateway
from transcriber.protocol.partitions import subject_of_partition

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


async def all_carried(serving: Gateway) -> list[int]:
    """Wait until daemons carry all clients' streams. Returns how many each of them has."""
    async with asyncio.timeout(PATIENCE):
        while True:
            carried = [daemon.streams for daemon in await serving.workers.ask()]
            if sum(carried) == CLIENTS:
                return carried
            await asyncio.sleep(0.1)  # a daemon says it when it is asked


@asynccontextmanager
async def owner(url: str, partitions: range) -> AsyncIterator[asyncio.Queue[Msg]]:
    """Hears the audio of these partitions, as a member of the fleet does."""
    async with await nats.connect(url) as client:
        heard: asyncio.Queue[Msg] = asyncio.Queue()
        for partition in partitions:
            await client.subscribe(subject_of_partition(partition), cb=heard.put)
        await client.flush()
        yield heard


async def streams(heard: asyncio.Queue[Msg]) -> set[str]:
    """The streams that are heard before each has come twice."""
    seen: Counter[str] = Counter()
    async with asyncio.timeout(PATIENCE):
        while len(seen) < CLIENTS or min(seen.values()) < 2:
            seen[(await heard.get()).subject] += 1
    return set(seen)


async def test_stream_of_a_dead_owner_goes_to_another(nats_server: NatsServer) -> None:
    """At once, under another name; what the dead one had is told as lost. Nobody waits until its lease has run out."""
    url, half = nats_server.url, FLEET.partitions // 2
    async with worker(url), gateway(url, fleet=FLEET) as serving, AsyncExitStack() as clients:
        path = f"ws://127.0.0.1:{serving.port}/plain?eager"
        talking = [await clients.enter_async_context(connect(path)) for _ in range(CLIENTS)]
        stop = asyncio.Event()

        async def talk() -> None:
            while not stop.is_set():
                for client in talking:
                    await client.send(bytes(3200))
                await asyncio.sleep(0.1)

        chatter = asyncio.create_task(talk())
        async with owner(url, range(half)) as living:
            first = await streams(living)
        async with owner(url, range(half, FLEET.partitions)) as living:
            second = await streams(living)
        stop.set()
        await chatter
        told = [json.loads(await client.recv()) for client in talking]
    assert len(first) == len(second) == CLIENTS
    assert {(message["type"], message["reason"]) for message in told} == {("refused", "worker_lost")}


async def test_fleet_shares_a_gateways_clients(server: NatsServer, heldout: Speech) -> None:
    """Each stream is heard by the owner of its partition and by nobody else, also after its partition has moved."""
    speech = heldout.cut(0, 4)
    await set_up_fleet(server.url, live=True)
    async with Daemon(server.url, **member()) as first, Daemon(server.url, **member()) as second:
        await second.logged("joined the fleet")
        await until_seen(server.url, lambda view: [bool(m["partitions"]) for m in view["members"]] == [True] * 2)
        members = (await status(server.url))["members"]
        async with gateway(server.url, fleet=FLEET) as serving:
            talking = [asyncio.create_task(talk(serving, speech)) for _ in range(CLIENTS)]
            carried = await all_carried(serving)
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
