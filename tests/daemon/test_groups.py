"""Daemons of a group, which hear the streams of that group alone: P-40."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import connected, jetstream_server
from fleets import member, set_up_fleet, transcriber
from harness import PATIENCE, QUICK, Client, Daemon, NatsServer, Speech, s16

from transcriber.broker.permissions import configuration
from transcriber.daemon.shutdown import ExitCode
from transcriber.protocol.partitions import FleetOptions, audio_subject

LARGE = {"AUDIO_SUBJECT": "audio.large.*"}
FLEET = FleetOptions("f", group="large")
USERS = ("DAEMON", "PRODUCER", "READER", "SETUP", "OPERATOR", "GATEWAY")


@pytest.fixture(params=[None, FLEET], ids=["one", "fleet"])
def fleet(request: pytest.FixtureRequest) -> FleetOptions | None:
    """A group of one daemon, and a group that is a fleet."""
    fleet: FleetOptions | None = request.param
    return fleet


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fleet: FleetOptions | None) -> Iterator[NatsServer]:
    """A server that allows what `transcriber setup` prints for the group, and nothing else."""
    for user in USERS:
        monkeypatch.setenv(f"TRANSCRIBER_{user}_PASSWORD", user.lower())
    with jetstream_server(tmp_path, configuration("audio.large.*", fleet)) as running:
        yield running


def as_user(server: NatsServer, user: str) -> str:
    return f"nats://{user}:{user}@127.0.0.1:{server.port}"


async def test_group_hears_its_own_streams(guarded: NatsServer, fleet: FleetOptions | None, heldout: Speech) -> None:
    """With the printed permissions, of a producer and of a gateway. Its operator reaches it under the group's name."""
    speech, user = heldout.cut(0, 2), {"NATS_USER": "daemon", "NATS_PASSWORD": "daemon"}
    settings = QUICK | LARGE | user
    if fleet is not None:
        await set_up_fleet(as_user(guarded, "setup"), fleet, live=True)
        settings |= member(**settings)
    async with (
        Client(as_user(guarded, "reader"), hears="transcript.*.*") as listener,
        Daemon(guarded.url, **settings) as daemon,
    ):
        headers = {"Audio-Sample-Rate": str(speech.rate), "Audio-Event": "end"}
        for sender in ("producer", "gateway"):
            subject = audio_subject(sender, "large", None if fleet is None else fleet.partitions)
            async with connected(as_user(guarded, sender)) as client:
                await client.publish(subject, s16(speech.samples), headers=headers)
                await client.flush()
            await listener.until_type("ended", stream=sender)
            assert listener.text(sender) == speech.words
        async with connected(as_user(guarded, "operator")) as operator:
            answer = await operator.request("transcriber.control.model.=all-large", b"", timeout=PATIENCE)
        assert json.loads(answer.data)["model"] == "ggml-dispatch-mini"
        assert await daemon.stop() == ExitCode.CLEAN
    assert not [r for r in daemon.records if "permission" in r["message"].lower()]


async def test_group_and_default_hear_nothing_of_each_other(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """Each stream has one account, by the daemon that it was sent to."""
    speech = heldout.cut(0, 1)
    async with Daemon(nats_server.url, **QUICK), Daemon(nats_server.url, **QUICK, **LARGE):
        for subject in ("audio.plain", "audio.large.wanted"):
            chunk = {"audio_sample_rate": speech.rate, "audio_event": "end"}
            await client.send(s16(speech.samples), subject=subject, **chunk)
        for stream in ("plain", "wanted"):
            await client.until_type("ended", stream=stream)
    assert sorted(body["stream"] for body in client.of("started", "ended")) == ["plain"] * 2 + ["wanted"] * 2


async def test_setup_of_a_group_makes_no_streams(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stores no audio. With a fleet, the mapping is for its own subjects."""
    monkeypatch.setenv("AUDIO_SUBJECT", "audio.large.*")
    code, said = await transcriber(server.url, "setup")
    assert (code, "AUDIO: made" in said, "TRANSCRIBER_MEMBERS: made" in said) == (0, False, True)
    assert 'mappings { "audio.large.*": "audio.large.{{partition(64,1)}}.{{wildcard(1)}}" }' in said
    assert "STREAM.UPDATE" not in said
