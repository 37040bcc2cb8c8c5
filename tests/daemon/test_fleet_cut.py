"""Members of a fleet whose network is cut, in either direction or both, while everybody else goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest
from chaos import covered, durable, everything, publish
from fleet_chaos import records_until_ended
from fleets import FLEET, member, play, set_up_fleet, until_seen
from harness import PATIENCE, STUB, Client, Daemon, NatsServer, Speech
from proxy import Proxy, Way

from transcriber.daemon.shutdown import ExitCode

STREAMS = [f"s{n}" for n in range(24)]
ENGINE = {"STUB_SECS": "0.01", "PARTIAL_INTERVAL_SECS": "0"}


@contextlib.asynccontextmanager
async def behind(server: NatsServer, **environ: str) -> AsyncIterator[tuple[Proxy, Daemon]]:
    """A daemon that reaches the server through a network of its own."""
    network = Proxy(server.port)
    await network.open()
    async with Daemon(network.url, script=STUB, **environ) as daemon:
        yield network, daemon
    await network.cut()


def shared(members: int) -> Callable[[dict[str, Any]], bool]:
    """Whether so many members own every partition, and each has streams at work."""
    return lambda seen: [m["load"] > 0 for m in seen["members"]] == [True] * members and not seen["without_owner"]


def owned_by_one(seen: dict[str, Any]) -> bool:
    return FLEET.partitions in {len(m["partitions"]) for m in seen["members"]}


async def test_cut_members_are_replaced_and_store_nothing_more(server: NatsServer, heldout: Speech) -> None:
    """Three at once: one is not heard, one hears nothing, and the one that makes the plans has neither."""
    speech = heldout.cut(0, 6)
    await set_up_fleet(server.url)
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        cut = [await enter(behind(server, **durable(**member(**ENGINE)))) for _ in Way]
        await enter(Daemon(server.url, script=STUB, **durable(**member(**ENGINE))))
        publishing = asyncio.gather(*(publish(server.url, speech, stream, pace=0.08) for stream in STREAMS))
        await until_seen(server.url, shared(len(Way) + 1))
        for (network, _), way in zip(cut, (Way.BOTH, Way.UP, Way.DOWN), strict=True):
            network.hold(way)
        took = await until_seen(server.url, owned_by_one)
        await publishing
        found = await records_until_ended(server.url, len(STREAMS), 2 * PATIENCE)
        for network, _ in cut:
            network.release()
        assert [await daemon.ended(2 * PATIENCE) for _, daemon in cut] == [ExitCode.FENCED] * len(Way)
        after = await records_until_ended(server.url, len(STREAMS), PATIENCE)
    print(f"owned by the one that is left after {took:.1f} s")
    assert after == found
    assert set(found) == set(STREAMS)
    for records in found.values():
        story = covered([body for _, body in records])
        assert (story.received, story.lost, story.doubled, story.gaps) == (everything(speech), 0, 0, 0)
    assert {body["epoch"] for records in found.values() for _, body in records if body["type"] == "taken_over"}


@pytest.mark.slow  # half a minute each
@pytest.mark.parametrize("way", Way)
async def test_live_member_that_was_cut_says_nothing_more(server: NatsServer, heldout: Speech, way: Way) -> None:
    """Its network works again after two leases. Each stream has one account, whose holes are told as gaps."""
    speech = heldout.cut(0, 16)
    await set_up_fleet(server.url, live=True)
    async with (
        Client(server.url) as client,
        behind(server, **member(**ENGINE)) as (network, first),
        Daemon(server.url, script=STUB, **member(**ENGINE)) as second,
    ):
        playing = asyncio.gather(*(play(client, speech, stream) for stream in STREAMS))
        await until_seen(server.url, shared(2))
        network.hold(way)
        await until_seen(server.url, owned_by_one)
        await asyncio.sleep(3)
        network.release()
        assert await first.ended(2 * PATIENCE) == ExitCode.FENCED
        await playing
        ended = await client.until_count(len(STREAMS), "ended")
        assert await second.stop() == ExitCode.CLEAN
    assert {round(body["received"] * 16_000) for body in ended} == {everything(speech)}
    assert {reason for body in ended for reason in body["gap"]} == {"lost_upstream"}
    for stream in STREAMS:
        assert len(client.of("started", stream=stream)) == 1
        finals = sorted(client.of("final", stream=stream), key=lambda body: body["start"])
        assert all(a["end"] <= b["start"] for a, b in pairwise(finals))
