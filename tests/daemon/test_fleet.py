"""Daemons that share the streams, with the real model. tests/slow/test_fleet_chaos.py runs for longer."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import nats
import pytest
from chaos import covered, durable, everything, jetstream_server, publish, until_ended
from fleets import FLEET, member, play, set_up_fleet, status, transcriber
from harness import Client, Daemon, NatsServer, Speech

from transcriber.broker.permissions import configuration
from transcriber.daemon.shutdown import ExitCode
from transcriber.protocol.partitions import LEASE_SECS

STREAMS = [f"s{n}" for n in range(6)]


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NatsServer]:
    """A server that allows what `transcriber setup` prints for a fleet, and nothing else."""
    for user in ("DAEMON", "PRODUCER", "READER", "SETUP", "OPERATOR", "GATEWAY"):
        monkeypatch.setenv(f"TRANSCRIBER_{user}_PASSWORD", user.lower())
    with jetstream_server(tmp_path, configuration("audio.*", FLEET)) as running:
        yield running


def as_user(server: NatsServer, user: str) -> str:
    return f"nats://{user}:{user}@127.0.0.1:{server.port}"


async def test_frozen_owner_is_replaced_and_stores_nothing_more(guarded: NatsServer, heldout: Speech) -> None:
    """In durable mode, with the printed permissions: nothing is lost or doubled, and the thawed owner leaves."""
    speech = heldout.cut(0, 6)
    await set_up_fleet(as_user(guarded, "setup"))
    url, credentials = as_user(guarded, "daemon"), {"NATS_USER": "daemon", "NATS_PASSWORD": "daemon"}
    async with (
        Daemon(guarded.url, **durable(**member(**credentials))) as first,
        Daemon(guarded.url, **durable(**member(**credentials))) as second,
    ):
        publishing = asyncio.gather(
            *(publish(as_user(guarded, "producer"), speech, stream, pace=0.05) for stream in STREAMS)
        )
        await asyncio.sleep(2.5)  # so that the second one has its share
        with first.frozen():
            froze = time.monotonic()
            await second.logged("a member of the fleet is gone", patience=2 * LEASE_SECS + 2)
            assert time.monotonic() - froze >= LEASE_SECS - 1.1  # less the age of its last renewal
            await publishing
            found = [await until_ended(url, stream) for stream in STREAMS]
        assert await first.ended() == ExitCode.FENCED
        after = [await until_ended(url, stream) for stream in STREAMS]
        assert await second.stop() == ExitCode.CLEAN
    assert after == found
    for records in found:
        story = covered(records)
        assert (story.received, story.lost, story.doubled) == (everything(speech), 0, 0)
    assert "taken_over" in {record["type"] for records in found for record in records}
    assert not [r for r in second.records if "permission" in r["message"].lower()]


async def test_live_streams_move_without_a_gap(server: NatsServer, heldout: Speech) -> None:
    """A second daemon joins and gets its share, then the first one is drained: every session goes on, to the sample."""
    speech = heldout.cut(0, 6)
    await set_up_fleet(server.url, live=True)
    async with Client(server.url) as client, Daemon(server.url, **member()) as first:
        playing = asyncio.gather(
            *(play(client, speech, stream, offsets=number % 2 == 0) for number, stream in enumerate(STREAMS))
        )
        async with Daemon(server.url, **member()) as second:
            await second.logged("joined the fleet")
            await asyncio.sleep(3)
            seen = await status(server.url)
            assert min(len(m["partitions"]) for m in seen["members"]) >= 28
            name = seen["members"][0]["name"]
            code, said = await transcriber(server.url, "fleet", "drain", name)
            assert (code, f"{name} gives up" in said) == (0, True)
            await playing
            ended = await client.until_count(len(STREAMS), "ended")
            seen = await status(server.url)
            assert [len(m["partitions"]) for m in seen["members"]] == [0, 64]
            assert [m["draining"] for m in seen["members"]] == [True, False]
            assert first.process.send_signal(signal.SIGTERM) is None
            assert await first.ended() == ExitCode.CLEAN
    assert {round(body["received"] * 16_000) for body in ended} == {everything(speech)}
    assert [body["gap"] for body in ended] == [{}] * len(STREAMS)
    for stream in STREAMS:
        finals = client.of("final", stream=stream)
        assert {body["session"] for body in finals} == {"x"}
        assert all(a["end"] <= b["start"] for a, b in pairwise(finals))
    assert client.of("rejected", "lost") == []


async def test_server_and_program_agree_on_partitions(server: NatsServer) -> None:
    """The server's own transform puts each stream where `partition_of` says, and setup may run again."""
    made = await set_up_fleet(server.url)
    assert "AUDIO: made" in made
    assert "AUDIO: is there" in await set_up_fleet(server.url)
    streams = [f"stream-{n}" for n in range(50)]
    client = await nats.connect(server.url)
    for stream in streams:
        await client.jetstream().publish(f"audio.{stream}", b"")
    info = await client.jetstream().stream_info("AUDIO", subjects_filter=">")
    assert set(info.state.subjects) == {FLEET.subject_of(stream) for stream in streams}
    await client.close()


async def test_daemon_without_fleet_refuses_a_fleets_audio(server: NatsServer) -> None:
    """It would find no audio on its subject, and say nothing."""
    await set_up_fleet(server.url)
    async with Daemon(server.url, wait=False, **durable()) as daemon:
        assert await daemon.ended() == ExitCode.CANNOT_START
    assert "belongs to a fleet: set FLEET" in daemon.records[-2]["message"] + daemon.records[-1]["message"]


async def test_fleet_command_without_members_says_so(server: NatsServer) -> None:
    """Setup is missing at first; then there is nobody to drain."""
    code, said = await transcriber(server.url, "fleet", "status")
    assert (code, "FLEET=f transcriber setup" in said) == (3, True)
    code, said = await transcriber(server.url, "setup", "--live")
    assert code == 0
    assert 'mappings { "audio.*": "audio.{{partition(64,1)}}.{{wildcard(1)}}" }' in said
    code, said = await transcriber(server.url, "fleet", "drain", "pod-1-8080")
    assert (code, "pod-1-8080 is no member of this fleet; there are: none" in said) == (3, True)
    code, said = await transcriber(server.url, "fleet", "status")
    assert (code, "64 without owner" in said) == (0, True)
