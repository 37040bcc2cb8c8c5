"""The permissions that `transcriber setup` prints, in a real server: they allow all that is needed and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from chaos import connected, durable, jetstream_server, publish, set_up_streams
from harness import Daemon, NatsServer, Speech
from nats.aio.msg import Msg

from transcriber.broker.permissions import configuration
from transcriber.daemon.shutdown import ExitCode


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NatsServer]:
    """A server that allows what `transcriber setup` prints, and nothing else."""
    for user in ("DAEMON", "PRODUCER", "READER", "SETUP", "OPERATOR", "GATEWAY"):
        monkeypatch.setenv(f"TRANSCRIBER_{user}_PASSWORD", user.lower())
    with jetstream_server(tmp_path, configuration("audio.s1")) as running:
        yield running


def as_user(server: NatsServer, user: str) -> str:
    return f"nats://{user}:{user}@127.0.0.1:{server.port}"


async def test_printed_permissions_allow_all_that_is_needed(guarded: NatsServer, heldout: Speech) -> None:
    speech = heldout.cut(0, 3)
    await set_up_streams(as_user(guarded, "setup"))
    credentials = {"NATS_USER": "daemon", "NATS_PASSWORD": "daemon", "AUDIO_SUBJECT": "audio.s1"}
    ended = asyncio.Event()
    async with connected(as_user(guarded, "reader")) as reader:

        async def hear(message: Msg) -> None:
            if json.loads(message.data)["type"] == "ended":
                ended.set()

        await reader.subscribe("transcript.s1.*", cb=hear)
        async with Daemon(guarded.url, **durable(**credentials)) as daemon:
            await publish(as_user(guarded, "producer"), speech)
            async with asyncio.timeout(20):
                await ended.wait()
            assert await daemon.stop() == ExitCode.CLEAN
        async with Daemon(guarded.url, **durable(**credentials)) as daemon:  # goes on from a checkpoint
            async with connected(as_user(guarded, "operator")) as operator:
                answer = await operator.request("transcriber.control.model.s1", b"", timeout=30)
            assert json.loads(answer.data)["model"] == "ggml-dispatch-mini"
            assert await daemon.stop() == ExitCode.CLEAN
    assert not [r for r in daemon.records if "permission" in r["message"].lower()]


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("daemon", "audio.s1"),
        ("daemon", "transcriber.control.model.s1"),
        ("daemon", "transcript.other.final"),
        ("daemon", "$JS.API.STREAM.DELETE.AUDIO"),
        ("daemon", "$JS.API.STREAM.PURGE.TRANSCRIPTS"),
        ("daemon", "$JS.API.CONSUMER.DELETE.AUDIO.transcriber-other"),
        ("daemon", "$KV.TRANSCRIBER_LEASES.other"),
        ("producer", "audio.other"),
        ("producer", "transcriber.control.model.s1"),
        ("producer", "transcript.s1.final"),
        ("producer", "$JS.API.STREAM.INFO.AUDIO"),
        ("reader", "transcript.s1.final"),
        ("reader", "audio.s1"),
        ("reader", "transcriber.control.model.s1"),
        ("setup", "$JS.API.STREAM.DELETE.AUDIO"),
        ("setup", "audio.s1"),
        ("gateway", "transcriber.control.model.s1"),
        ("gateway", "transcript.s1.final"),
        ("gateway", "$JS.API.STREAM.INFO.AUDIO"),
        ("operator", "audio.s1"),
        ("operator", "transcribe.s1"),
        ("operator", "transcriber.control.model.other"),
    ],
)
async def test_printed_permissions_refuse_everything_else(guarded: NatsServer, user: str, subject: str) -> None:
    refused = asyncio.Event()

    async def on_error(error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            refused.set()

    async with await nats.connect(as_user(guarded, user), error_cb=on_error) as client:
        await client.publish(subject, b"{}")
        async with asyncio.timeout(5):
            await refused.wait()
