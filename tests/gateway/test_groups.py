"""Live speech that asks for a model goes to the group of daemons that has it, and there alone (P-40)."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from command import Bus
from fleets import member, set_up_fleet
from gateways import error_of, gateway, refusal, worker
from harness import PATIENCE, QUICK, Daemon, NatsServer, Speech, s16
from websockets.asyncio.client import ClientConnection, connect
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart
from wyoming.client import AsyncClient

from transcriber.gateway import bridge, channel
from transcriber.gateway.service import Gateway
from transcriber.models import store
from transcriber.protocol.partitions import FleetOptions

SECOND = bytes(32_000)  # of 16 kHz s16 mono
BIG = {"model": "ct2-large-v3", "subject": "audio.big.*"}


@pytest.fixture
async def serving(nats_server: NatsServer) -> AsyncIterator[Gateway]:
    """A gateway, and a worker of the default with a model of its own."""
    url = nats_server.url
    async with worker(url, model="ggml-base.en", subject="audio.*"), gateway(url, wyoming_port=0) as running:
        yield running


async def known(serving: Gateway, count: int) -> None:
    """Wait until the gateway knows so many workers."""
    async with asyncio.timeout(PATIENCE):
        while len(await serving.workers.ask()) != count:  # noqa: ASYNC110 - they are asked again
            await asyncio.sleep(0.05)


async def deepgram(address: str, model: str, stack: AsyncExitStack) -> None:
    query = f"model={model}&encoding=linear16&sample_rate=16000"
    await (await stack.enter_async_context(connect(f"{address}/v1/listen?{query}"))).send(SECOND)


async def realtime(address: str, model: str, stack: AsyncExitStack) -> None:
    client = await stack.enter_async_context(connect(f"{address}/v1/realtime?intent=transcription"))
    given = {"type": "transcription", "audio": {"input": {"transcription": {"model": model}}}}
    await client.send(json.dumps({"type": "session.update", "session": given}))
    await client.send(json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(SECOND).decode()}))


async def vosk(address: str, model: str, stack: AsyncExitStack) -> None:
    client = await stack.enter_async_context(connect(address))
    await client.send(json.dumps({"config": {"sample_rate": 16000, "model": model}}))
    await client.send(SECOND)


async def raw_pcm(address: str, model: str, stack: AsyncExitStack) -> None:
    await (await stack.enter_async_context(connect(f"{address}/v2/decode/stream/{model}"))).send(SECOND)


async def wyoming(address: str, model: str, stack: AsyncExitStack) -> None:
    client = await stack.enter_async_context(AsyncClient.from_uri(address))
    shape = {"rate": 16_000, "width": 2, "channels": 1}
    for event in (Transcribe(name=model), AudioStart(**shape), AudioChunk(**shape, audio=SECOND)):
        await client.write_event(event.event())


@pytest.mark.parametrize("speak", [deepgram, realtime, vosk, raw_pcm, wyoming])
async def test_stream_goes_to_the_group_with_its_model(
    nats_server: NatsServer,
    serving: Gateway,
    heard: Bus,
    speak: Callable[[str, str, AsyncExitStack], Awaitable[None]],
) -> None:
    """However the protocol names it. What nobody has, and what the default has, goes to the default."""
    address = f"ws://127.0.0.1:{serving.port}"
    if speak is wyoming:
        address = f"tcp://127.0.0.1:{serving._door.port}"
    subjects = []
    async with worker(nats_server.url, **BIG), AsyncExitStack() as stack:
        await known(serving, 2)
        for model in ("large-v3", "whisper-1", "base.en"):
            await speak(address, model, stack)
            subjects.append((await heard.next()).subject.rpartition(".")[0])
    assert subjects == ["audio.big", "audio", "audio"]


async def test_group_that_is_a_fleet_gets_the_partition(nats_server: NatsServer, serving: Gateway, heard: Bus) -> None:
    """Its daemons say how many there are. The server is asked whether the owner is there."""
    async with worker(nats_server.url, **BIG, partitions=1), AsyncExitStack() as stack:
        await known(serving, 2)
        await raw_pcm(f"ws://127.0.0.1:{serving.port}", "large-v3", stack)
        chunk = await heard.next()
    assert chunk.subject.startswith("audio.big.0.anyone-")
    assert chunk.reply.startswith("_INBOX.")


async def test_full_group_refuses_and_the_default_goes_on(nats_server: NatsServer, serving: Gateway) -> None:
    """503 where the address names the model; where a message does, the connection is closed at its first audio."""
    async with worker(nats_server.url, **BIG, streams=5, max_streams=5):
        await known(serving, 2)
        for path in ("/v1/listen?model=large-v3&encoding=linear16&sample_rate=16000", "/v2/decode/stream/large-v3"):
            response = await refusal(serving, path)
            assert response.status_code == 503
        assert error_of(await refusal(serving, "/v1/realtime?model=large-v3")) == "overloaded"
        async with connect(f"ws://127.0.0.1:{serving.port}/v2/decode/stream/tiny") as client:
            await client.send(SECOND)
        async with connect(f"ws://127.0.0.1:{serving.port}") as client:
            await client.send(json.dumps({"config": {"model": "large-v3"}}))
            await client.send(SECOND)
            await client.wait_closed()
        assert (client.close_code, client.close_reason) == (1013, "overloaded")


async def test_full_default_keeps_nobody_from_a_group(nats_server: NatsServer, heard: Bus) -> None:
    full = {"model": "ggml-base.en", "streams": 5, "max_streams": 5}
    async with worker(nats_server.url, **full), worker(nats_server.url, **BIG), gateway(nats_server.url) as serving:
        await known(serving, 2)
        assert (await refusal(serving, "/v2/decode/stream/base.en")).status_code == 503
        async with AsyncExitStack() as stack:
            await vosk(f"ws://127.0.0.1:{serving.port}", "large-v3", stack)
            assert (await heard.next()).subject.startswith("audio.big.")


async def everything(client: ClientConnection) -> list[dict[str, Any]]:
    """All that is told until the connection is closed."""
    async with asyncio.timeout(PATIENCE):
        return [json.loads(text) async for text in client]


async def left_alone(stack: AsyncExitStack, server: NatsServer, serving: Gateway, heard: Bus) -> ClientConnection:
    """A client whose group is gone when it has heard a second of audio."""
    group = await stack.enter_async_context(worker(server.url, **BIG))
    await known(serving, 2)
    address = f"ws://127.0.0.1:{serving.port}/plain?eager&model=large-v3"
    client = await stack.enter_async_context(connect(address))
    await client.send(SECOND)
    await heard.next()
    await group.close()
    return client


@pytest.mark.parametrize("when", ["before", "after", "later", "queued"])
async def test_stream_whose_group_is_gone_is_answered(
    nats_server: NatsServer, serving: Gateway, heard: Bus, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Its flush and its end: before the gateway knows and after, once the loss is told, and after audio that waits."""
    monkeypatch.setattr(channel, "_SUSPECT_TICKS", 1)
    monkeypatch.setattr(bridge, "AWAY_SECS", 1.0 if when == "queued" else 2 * PATIENCE)  # only audio waits so long
    async with AsyncExitStack() as stack:
        client = await left_alone(stack, nats_server, serving, heard)
        if when != "before":
            await known(serving, 1)
        told = [json.loads(await client.recv())] if when == "later" else []
        for message in ([SECOND] if when == "queued" else []) + ["flush", "end"]:
            await client.send(message)
        told += await everything(client)
    seconds = 2.0 if when == "queued" else 1.0
    lost = [message for message in told if message["type"] == "refused"]
    assert (lost[0]["start"], lost[-1]["end"]) == (0.0, seconds)
    assert [message["type"] for message in told if message not in lost] == ["flushed", "ended"]
    assert sum(told[-1]["gap"].values()) == told[-1]["received"] == seconds
    assert client.close_code == 1000


async def test_group_that_comes_back_takes_what_waited(nats_server: NatsServer, serving: Gateway, heard: Bus) -> None:
    """As when its only daemon is restarted. What the old one had is told as lost."""
    async with AsyncExitStack() as stack:
        client = await left_alone(stack, nats_server, serving, heard)
        await known(serving, 1)
        await client.send(SECOND)
        async with asyncio.timeout(PATIENCE):
            while not serving.figures.pauses:  # noqa: ASYNC110 - the gateway holds it, and tells nobody
                await asyncio.sleep(0.01)
        assert heard.heard.empty()
        async with worker(nats_server.url, **BIG):
            chunk = await heard.next()
            lost = json.loads(await client.recv())
    assert (chunk.subject.startswith("audio.big."), chunk.headers["Audio-Offset"]) == (True, "16000")
    assert (lost["type"], lost["reason"], lost["start"], lost["end"]) == ("refused", "worker_lost", 0.0, 1.0)


@asynccontextmanager
async def repeated(heard: Bus, message: dict[str, Any]) -> AsyncIterator[None]:
    """A worker that goes on speaking."""

    async def speak() -> None:
        while True:
            await heard.tell(message)
            await asyncio.sleep(0.1)

    speaking = asyncio.create_task(speak())
    try:
        yield
    finally:
        speaking.cancel()


async def test_model_may_change_while_a_client_is_connected(
    nats_server: NatsServer, serving: Gateway, heard: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next session goes to the other lane. The first one's workers may be gone by then, and are not waited for."""
    monkeypatch.setattr(channel, "_SUSPECT_TICKS", 1)
    async with worker(nats_server.url, **BIG) as group, AsyncExitStack() as stack:
        await known(serving, 2)
        client = await stack.enter_async_context(connect(f"ws://127.0.0.1:{serving.port}/v1/realtime"))
        for model in ("large-v3", "base.en"):
            given = {"turn_detection": None, "transcription": {"model": model}}
            session = {"type": "transcription", "audio": {"input": given}}
            await client.send(json.dumps({"type": "session.update", "session": session}))
            audio = base64.b64encode(SECOND).decode()
            await client.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            await client.send(json.dumps({"type": "input_audio_buffer.commit"}))
        messages = [await heard.next() for _ in range(5)]
        subjects = [message.subject.rpartition(".")[0] for message in messages]
        assert subjects == ["audio.big"] * 3 + ["audio"] * 2  # audio, flush and end; audio and flush
        await group.close()
        second = {"stream": messages[-1].subject.rpartition(".")[2], "session": messages[-1].headers["Audio-Session"]}
        status = {"v": 1, "type": "status", **second, "received": 1.0, "pending": 1.0}
        async with asyncio.timeout(PATIENCE), repeated(heard, status):
            async for text in client:
                if (event := json.loads(text))["type"].endswith("transcription.failed"):
                    break
    assert event["error"]["code"] == "worker_lost"


@pytest.fixture
def models(tmp_path: Path) -> dict[str, str]:
    """The bundled model under two names."""
    paths = {name: tmp_path / f"ggml-{name}.bin" for name in ("one", "two")}
    for path in paths.values():
        shutil.copyfile(store.bundled_model_path(), path)
    return {name: str(path) for name, path in paths.items()}


async def talk(serving: Gateway, model: str, speech: Speech) -> list[dict[str, Any]]:
    """Speak at once; returns all that is told."""
    address = f"ws://127.0.0.1:{serving.port}/v2/decode/stream/{model}?sample_rate={speech.rate}"
    async with connect(address) as client:
        pcm, step = s16(speech.samples), speech.rate // 5 * 2
        for start in range(0, len(pcm), step):
            await client.send(pcm[start : start + step])
        await client.send(json.dumps({"type": "end"}))
        return await everything(client)


@pytest.mark.parametrize("fleet", [None, FleetOptions("f", group="big")], ids=["one", "fleet"])
async def test_real_daemons_are_heard_by_their_models(
    server: NatsServer, models: dict[str, str], heldout: Speech, fleet: FleetOptions | None
) -> None:
    """Every text names the model that was asked for. When the group is killed, its client is answered."""
    speech, url = heldout.cut(0, 2), server.url
    big = QUICK | {"WHISPER_MODEL_PATH": models["two"], "AUDIO_SUBJECT": "audio.big.*"}
    if fleet is not None:
        await set_up_fleet(url, fleet, live=True)
        big = member(**big)
    async with (
        Daemon(url, **QUICK, WHISPER_MODEL_PATH=models["one"]),
        Daemon(url, **big) as group,
        gateway(url) as serving,
    ):
        await known(serving, 2)
        told = await asyncio.gather(*(talk(serving, model, speech) for model in ("one", "two", "other")))
        for messages, model in zip(told, ("one", "two", "one"), strict=True):
            finals = [message for message in messages if message["type"] == "final"]
            assert {final["model"] for final in finals} == {f"ggml-{model}"}
            assert " ".join(final["transcription"] for final in finals) == speech.words
        async with connect(f"ws://127.0.0.1:{serving.port}/v2/decode/stream/two") as client:
            await client.send(SECOND)
            group.process.kill()
            await group.process.wait()
            await client.send(json.dumps({"type": "end"}))
            gap, ended = await everything(client)
        assert (gap["type"], gap["reason"], ended["type"]) == ("gap", "worker_lost", "ended")
        assert {final["model"] for final in await talk(serving, "two", speech) if final["type"] == "final"} == {
            "ggml-one"
        }
