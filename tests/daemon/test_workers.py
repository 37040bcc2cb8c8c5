"""What workers say of themselves, and requests for a model that only some of them have: P-38 and P-39."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from asking import ask
from harness import PATIENCE, QUICK, STUB, Client, Daemon, NatsServer, Speech, s16

from transcriber.broker.permissions import configuration
from transcriber.daemon.shutdown import ExitCode
from transcriber.gateway import workers
from transcriber.models import store

RATE = 16_000
RAW = {"Audio-Sample-Rate": str(RATE)}


async def statistics(client: Client) -> tuple[bytes, dict[str, Any]]:
    """One worker's answer, and what it says of itself."""
    reply = await client.nats.request("$SRV.STATS.transcriber", b"", timeout=PATIENCE)
    (endpoint,) = json.loads(reply.data)["endpoints"]
    assert endpoint["name"] == "transcribe"
    return reply.data, endpoint["data"]


def named(folder: Path, name: str) -> Path:
    """The bundled model under another name."""
    path = folder / name
    shutil.copyfile(store.bundled_model_path(), path)
    return path


async def test_worker_tells_its_state(nats_server: NatsServer, client: Client, heldout: Speech) -> None:
    """Idle, and while a window is in its engine. The gateway reads it."""
    hanging = {"STUB_HANGS_AT": "2", "STUB_WARM_SECS": "0", "MAX_STREAMS": "7", "TRANSCRIPTION_QUEUE_CAPACITY": "3"}
    async with Daemon(nats_server.url, script=STUB, **QUICK, **hanging) as daemon:
        _, idle = await statistics(client)
        assert idle == {
            "model": "stub",
            "multilingual": True,
            "device": "cpu",
            "subject": "audio.*",
            "partitions": None,
            "depth": 0,
            "capacity": 3,
            "estimated_wait": 0.0,
            "max_latency": 20.0,
            "rtf": idle["rtf"],
            "busy": False,
            "busy_seconds": idle["busy_seconds"],
            "streams": 0,
            "max_streams": 7,
            "cpu_seconds": idle["cpu_seconds"],
            "memory": idle["memory"],
            "gpu_memory": None,
            "model_subject": "transcribe.stub",
        }
        assert idle["rtf"] > 0
        assert idle["cpu_seconds"] > 0
        assert idle["memory"] > 10**7
        speech = s16(heldout.cut(4, 5).samples)
        for stream in ("s1", "s2"):
            await client.send(speech, subject=f"audio.{stream}", audio_sample_rate=RATE, audio_event="flush")
        async with asyncio.timeout(PATIENCE):
            while (state := (await statistics(client))[1])["depth"] < 2 or not state["busy"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        answer, state = await statistics(client)
        assert (state["streams"], state["depth"]) == (2, 2)
        assert state["estimated_wait"] > 0
        worker = workers._worker(answer)
        assert worker is not None
        assert (worker.model, worker.depth, worker.capacity, worker.streams) == ("stub", 2, 3, 2)
        assert (worker.max_streams, worker.max_latency, worker.room) == (7, 20.0, True)
        daemon.process.kill()


async def test_requests_go_to_a_worker_with_their_model(
    nats_server: NatsServer, client: Client, heldout: Speech, tmp_path: Path
) -> None:
    """Two workers have one model and share its requests. Nobody has the third. Any of them takes the others."""
    models = {name: str(named(tmp_path, f"ggml-{name}.bin")) for name in ("one.en", "two")}
    pcm = s16(heldout.cut(4, 5).samples)

    async def asked(subject: str) -> str:
        answer = await ask(client, pcm, subject, RAW)
        assert answer.code is None, answer.error
        return str(answer.body["model"])

    def daemon(model: str) -> Daemon:
        return Daemon(nats_server.url, script=STUB, WHISPER_MODEL_PATH=models[model], **QUICK)

    async with daemon("one.en") as one, daemon("two") as first, daemon("two") as second:
        assert {await asked("one-en.call") for _ in range(6)} == {"ggml-one.en"}
        assert {await asked("two.call") for _ in range(6)} == {"ggml-two"}
        assert {await asked("call") for _ in range(30)} == {"ggml-one.en", "ggml-two"}
        with pytest.raises(nats.errors.NoRespondersError):
            await ask(client, pcm, "three.call", RAW)
        assert (await ask(client, b"\0", "two.call", RAW)).code == "400"
        assert await first.stop() == ExitCode.CLEAN
        assert {await asked("two.call") for _ in range(3)} == {"ggml-two"}
        assert await second.stop() == ExitCode.CLEAN
        with pytest.raises(nats.errors.NoRespondersError):
            await ask(client, pcm, "two.call", RAW)
        assert await one.stop() == ExitCode.CLEAN


async def test_subject_follows_a_swap_of_the_model(
    nats_server: NatsServer, client: Client, heldout: Speech, tmp_path: Path
) -> None:
    """When the swap is answered, requests for the new model arrive, and ones for the old model do not."""
    one = named(tmp_path, "ggml-one.bin")
    named(tmp_path, "ggml-two.bin")
    pcm = s16(heldout.cut(4, 5).samples)
    async with Daemon(nats_server.url, script=STUB, WHISPER_MODEL_PATH=str(one), **QUICK) as daemon:
        assert (await ask(client, pcm, "one.call", RAW)).body["model"] == "ggml-one"
        swap = json.dumps({"model": "ggml-two.bin"}).encode()
        await client.nats.request("transcriber.control.model.=all", swap, timeout=PATIENCE)
        assert (await ask(client, pcm, "two.call", RAW)).body["model"] == "ggml-two"
        assert (await statistics(client))[1]["model_subject"] == "transcribe.two"
        with pytest.raises(nats.errors.NoRespondersError):
            await ask(client, pcm, "one.call", RAW)
        assert await daemon.stop() == ExitCode.CLEAN
        assert daemon.stderr == ""


async def test_worker_does_without_the_permission_for_its_model(tmp_path: Path, heldout: Speech) -> None:
    """Permissions from before there were such subjects. It starts, warns, and takes the other requests."""
    old = configuration("audio.*").replace('"transcribe.*.*"', '"audio.*"')
    who = {"NATS_USER": "daemon", "NATS_PASSWORD": "secret"}
    with NatsServer(tmp_path / "nats", config=re.sub(r"\$TRANSCRIBER_\w+_PASSWORD", "secret", old)) as server:
        async with (
            Client(server.url, user="gateway", password="secret") as client,
            Daemon(server.url, script=STUB, **who, **QUICK) as daemon,
        ):
            assert (await ask(client, s16(heldout.cut(4, 5).samples), "call", RAW)).code is None
            assert (await statistics(client))[1]["model_subject"] is None
            warning = await daemon.logged("NATS: nats: permissions violation")
            assert (warning["level"], "transcribe.stub.*" in warning["message"]) == ("warning", True)
            assert await daemon.stop() == ExitCode.CLEAN
