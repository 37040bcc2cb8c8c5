"""Recordings go to a worker that has the model that the client names, and to any other one if none has it."""

from __future__ import annotations

import io
import json
import wave
from typing import Any

import aiohttp
import nats
import pytest
from gateways import gateway, worker
from harness import NatsServer
from nats.aio.msg import Msg


@pytest.mark.parametrize(
    ("model", "subject"),
    [("base.en", "transcribe.base-en.anyone"), ("whisper-1", "transcribe.anyone"), ("", "transcribe.anyone")],
)
async def test_recording_goes_to_a_worker_with_its_model(nats_server: NatsServer, model: str, subject: str) -> None:
    answer: dict[str, Any] = {"type": "final", "start": 0.0, "end": 0.1, "text": "yes", "segments": [], "confidence": 1}
    answer |= {"language": "en", "model": "m", "latency": {"processing": 0.0}}
    heard: list[str] = []

    async def reply(message: Msg) -> None:
        heard.append(message.subject)
        await message.respond(json.dumps(answer).encode())

    form = aiohttp.FormData({"model": model or "any"})
    form.add_field("file", recording(), filename="a.wav")
    client = await nats.connect(nats_server.url)
    await client.subscribe("transcribe.>", cb=reply)
    await client.flush()
    async with (
        worker(nats_server.url, model="ggml-base.en", model_subject="transcribe.base-en", capacity=9),
        gateway(nats_server.url) as serving,
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{serving.port}/v1/audio/transcriptions", data=form) as response,
    ):
        assert (await response.json())["text"] == "yes"
    await client.close()
    assert heard == [subject]


def recording() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(bytes(3200))
    return file.getvalue()
