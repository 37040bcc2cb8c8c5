"""A member's entries in the buckets of a real server, and a network that carries one way only."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping

import nats
import pytest
from fleets import FLEET, set_up_fleet
from harness import PATIENCE, NatsServer
from nats.aio.msg import Msg
from proxy import Proxy, Way

from transcriber.broker.connection import Connection
from transcriber.broker.fleet import FleetStore
from transcriber.broker.options import BrokerOptions
from transcriber.fleet import membership
from transcriber.fleet.holder import Figures
from transcriber.fleet.membership import Membership
from transcriber.protocol.partitions import MEMBERS


class Idle:
    """Holds partitions and does nothing with them."""

    prepares = False

    async def prepare(self, _partition: int) -> None: ...
    async def start(self, _batch: Mapping[int, tuple[int, bool]]) -> None: ...
    async def drain(self, _partition: int) -> None: ...
    async def forget(self, _partition: int) -> None: ...
    def figures(self) -> Figures:
        return Figures(capacity=10.0)


@contextlib.asynccontextmanager
async def store(url: str) -> AsyncIterator[FleetStore]:
    connection = Connection(BrokerOptions(url=url))
    await connection.open()
    try:
        yield FleetStore(connection, FLEET.name)
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def member_of(found: FleetStore, name: str) -> AsyncIterator[Membership]:
    """A member that stops without leaving."""
    member = Membership(found, name, FLEET.partitions, Idle())
    await member.join()
    running = asyncio.create_task(member.run())
    try:
        yield member
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def owners(member: Membership, wanted: set[str]) -> None:
    """Wait until these members own all partitions."""
    async with asyncio.timeout(PATIENCE):
        while {entry.owner for entry in member.plan.partitions} != wanted:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)


async def test_member_that_hears_nothing_loses_its_entry(server: NatsServer) -> None:
    """What it sends still arrives. It must not go on renewing a lease that it cannot know to hold."""
    await set_up_fleet(server.url)
    network = Proxy(server.port)
    await network.open()
    renewals: list[Msg] = []
    listener = await nats.connect(server.url)

    async def hear(message: Msg) -> None:
        renewals.append(message)

    await listener.subscribe(f"$KV.{MEMBERS}.>", cb=hear)
    async with store(network.url) as cut, store(server.url) as seen:
        member = Membership(cut, "a=1", FLEET.partitions, Idle())
        await member.join()
        running = asyncio.create_task(member.run())
        async with asyncio.timeout(PATIENCE):
            await member.settled_in()
            network.hold(Way.DOWN)
            before = len(renewals)
            while await seen.member("a=1") is not None:
                assert len(renewals) - before <= 2  # one on its way, and one that gets no answer
                await asyncio.sleep(0.1)
        assert not member.valid
        network.release()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await listener.close()
    await network.cut()


async def test_change_during_a_renewal_is_told_without_waiting(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not in that renewal, so the next one comes at once."""
    monkeypatch.setattr(membership, "RENEW_SECS", 10 * PATIENCE)
    await set_up_fleet(server.url)
    renewed: list[bytes] = []
    async with store(server.url) as found:
        renew = found.renew

        async def slow(one: str, payload: bytes) -> None:
            await renew(one, payload)
            renewed.append(payload)
            if len(renewed) == 2:  # the first is that of `join`
                member.drain()

        monkeypatch.setattr(found, "renew", slow)
        async with member_of(found, "a=1") as member, asyncio.timeout(PATIENCE):
            while len(renewed) < 3:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.05)
    assert [json.loads(payload)["draining"] for payload in renewed] == [False, False, True]


async def test_positions_replace_only_those_that_were_read(server: NatsServer) -> None:
    """What an earlier owner wrote, and a network held up, does not overwrite those of the owner after it."""
    await set_up_fleet(server.url, live=True)
    async with store(server.url) as old, store(server.url) as new:
        assert await old.position(3) == (None, 0)
        first = await old.write_position(3, b"1", 0)
        assert first is not None
        assert await new.position(3) == (b"1", first)
        second = await new.write_position(3, b"2", first)
        assert second is not None
        assert await old.write_position(3, b"late", first) is None
        assert await new.position(3) == (b"2", second)
        assert await new.write_position(3, b"3", second) is not None


async def test_only_a_member_without_connection_is_removed(server: NatsServer) -> None:
    """One that is connected keeps its entry until its lease runs out."""
    await set_up_fleet(server.url)
    async with store(server.url) as seen:
        async with store(server.url) as there:
            await there.renew("a=1", b"{}")
            await there.be_present("a=1")
            assert not await seen.remove_if_disconnected("a=1")
            assert await seen.member("a=1") == b"{}"
        assert await seen.remove_if_disconnected("a=1")
        assert await seen.member("a=1") is None
        assert await seen.remove_if_disconnected("a=1")  # it is gone already


async def test_next_member_does_not_wait_for_a_dead_ones_lease(server: NatsServer) -> None:
    """It removes the entry, also that of the member that made the plans."""
    await set_up_fleet(server.url)
    removed = asyncio.Event()
    listener = await nats.connect(server.url)

    async def hear(message: Msg) -> None:
        if (message.headers or {}).get("KV-Operation") == "DEL":
            removed.set()

    await listener.subscribe(f"$KV.{MEMBERS}.{FLEET.name}.a=1", cb=hear)
    async with store(server.url) as seen, member_of(seen, "b=1") as left:
        async with store(server.url) as dying, member_of(dying, "a=1"):
            await owners(left, {"a=1", "b=1"})
        async with asyncio.timeout(PATIENCE):
            await removed.wait()
        await owners(left, {"b=1"})
    await listener.close()
