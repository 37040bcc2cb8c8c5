"""The client of the package wyoming, unchanged, as Home Assistant uses it: a connection for each command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
import soxr
from harness import PATIENCE, Speech, s16
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info

RATE, WIDTH, CHANNELS = 16_000, 2, 1
CHUNK = 2048  # bytes, as Home Assistant's voice satellites send


def pcm_of(speech: Speech) -> bytes:
    return s16(np.asarray(soxr.resample(speech.samples, speech.rate, RATE, "HQ"), np.float32))


async def say(client: AsyncClient, pcm: bytes) -> None:
    """One command, as Home Assistant sends it."""
    await client.write_event(Transcribe(language="en").event())
    await client.write_event(AudioStart(rate=RATE, width=WIDTH, channels=CHANNELS).event())
    for start in range(0, len(pcm), CHUNK):
        chunk = AudioChunk(rate=RATE, width=WIDTH, channels=CHANNELS, audio=pcm[start : start + CHUNK])
        await client.write_event(chunk.event())
    await client.write_event(AudioStop().event())


async def answer(client: AsyncClient) -> list[Event]:
    """All events up to the transcript."""
    events: list[Event] = []
    async with asyncio.timeout(PATIENCE):
        while not events or not Transcript.is_type(events[-1].type):
            event = await client.read_event()
            assert event is not None, events
            events.append(event)
    return events


@pytest.fixture
async def client(address: str, wyoming_port: int) -> AsyncIterator[AsyncClient]:
    async with AsyncClient.from_uri(f"tcp://127.0.0.1:{wyoming_port}") as connected:
        yield connected


async def test_wyoming_command_is_answered_with_its_words(client: AsyncClient, demo_speech: Speech) -> None:
    """The chunks of the stream, joined, are the transcript."""
    command = demo_speech.cut(0, 2)
    await say(client, pcm_of(command))
    events = await answer(client)
    transcript = Transcript.from_event(events[-1])
    assert (transcript.text, transcript.language) == (command.words, "en")
    chunks = [TranscriptChunk.from_event(event).text for event in events if TranscriptChunk.is_type(event.type)]
    assert "".join(chunks) == command.words
    assert "gaps" not in events[-1].data


async def test_wyoming_connection_takes_one_command_after_another(client: AsyncClient, demo_speech: Speech) -> None:
    """Said at once, they are answered in their order."""
    commands = [demo_speech.cut(n, n + 1) for n in (2, 5)]
    for command in commands:
        await say(client, pcm_of(command))
    for command in commands:
        assert Transcript.from_event((await answer(client))[-1]).text == command.words


@pytest.mark.parametrize("seconds", [0, 1])
async def test_wyoming_silence_is_answered(client: AsyncClient, seconds: int) -> None:
    """Home Assistant waits without a limit."""
    await say(client, bytes(seconds * RATE * WIDTH))
    assert Transcript.from_event((await answer(client))[-1]).text == ""


async def test_wyoming_describe_names_the_model_at_work(client: AsyncClient) -> None:
    """As the official package reads it."""
    await client.write_event(Describe().event())
    event = await client.read_event()
    assert event is not None
    (service,) = Info.from_event(event).asr
    assert service.installed
    assert service.supports_transcript_streaming
    (model,) = service.models
    assert model.name == "ggml-dispatch-mini"
    assert model.languages == ["en"]


async def test_wyoming_audio_of_the_wrong_width_is_an_error(client: AsyncClient) -> None:
    """And still answered."""
    await client.write_event(AudioStart(rate=RATE, width=4, channels=CHANNELS).event())
    await client.write_event(AudioStop().event())
    first, *_, last = await answer(client)
    assert Error.from_event(first).text == "width=4; allowed: 2 to 2"
    assert Transcript.from_event(last).text == ""


async def test_wyoming_bytes_that_are_no_event_end_it(client: AsyncClient) -> None:
    await client.write_event(Event("x" * 70_000))
    async with asyncio.timeout(PATIENCE):
        event = await client.read_event()
        assert event is not None
        assert Error.is_type(event.type)
        assert await client.read_event() is None
