"""OpenAI's official client, unchanged, in Realtime sessions: items, their order, texts and times, in both modes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import soxr
from harness import PATIENCE, Speech, s16
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

RATE = 24_000  # Hz
T = "conversation.item.input_audio_transcription"


class Ear:
    """A connection, and everything that it has received."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.connection = connection
        self.heard: list[Any] = []
        self._changed = asyncio.Event()
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.connection:
            self.heard.append(event)
            self._changed.set()

    async def until(self, kind: str, count: int = 1) -> list[Any]:
        """Wait for so many events whose type ends like this."""
        async with asyncio.timeout(PATIENCE):
            while len(found := self.of(kind)) < count:
                self._changed.clear()
                await self._changed.wait()
        return found

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.heard if event.type.endswith(kind)]

    async def send(self, pcm: bytes, size: int = 4800) -> None:
        for start in range(0, len(pcm), size):
            audio = base64.b64encode(pcm[start : start + size]).decode()
            await self.connection.input_audio_buffer.append(audio=audio)


@asynccontextmanager
async def session(address: str, detection: dict[str, Any] | None) -> AsyncIterator[Ear]:
    async with AsyncOpenAI(base_url=f"{address}/v1", api_key="any") as client:
        async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            ear = Ear(connection)
            audio = {
                "format": {"type": "audio/pcm", "rate": RATE},
                "transcription": {"model": "gpt-4o-transcribe", "language": "en"},
                "turn_detection": detection,
            }
            await connection.session.update(session={"type": "transcription", "audio": {"input": audio}})
            await ear.until("session.updated")
            yield ear
        await asyncio.wait([ear.reading])


def at_24k(speech: Speech) -> bytes:
    return s16(np.asarray(soxr.resample(speech.samples, speech.rate, RATE, "HQ"), np.float32))


def check_order(ear: Ear) -> list[str]:
    """Each item follows the one before it, and each has one text. Returns the texts in the order of the items."""
    committed = ear.of("input_audio_buffer.committed")
    ids = [event.item_id for event in committed]
    assert [event.previous_item_id for event in committed] == [None, *ids[:-1]]
    assert [event.item.id for event in ear.of("conversation.item.added")] == ids
    completed = {event.item_id: event.transcript for event in ear.of(f"{T}.completed")}
    assert len(ear.of(f"{T}.completed")) == len(completed)
    assert set(completed) == set(ids)
    for item, text in completed.items():
        deltas = "".join(event.delta for event in ear.of(f"{T}.delta") if event.item_id == item)
        assert deltas.split() == text.split()
    return [completed[item] for item in ids]


async def test_manual_commits_give_the_sentences_between_them(address: str, demo_speech: Speech) -> None:
    """One item for each two sentences, although a pause lies between them."""
    pcm = at_24k(demo_speech)
    rows = demo_speech.rows
    between = [(one["end"] + other["start"]) / 2 for one, other in zip(rows[1::2], rows[2::2], strict=False)]
    cuts = [0, *(int(time * RATE) * 2 for time in between), len(pcm)]
    async with session(address, None) as ear:
        for start, end in pairwise(cuts):
            await ear.send(pcm[start:end])
            await ear.connection.input_audio_buffer.commit()
        await ear.until(".completed", 4)
        assert not ear.of("speech_started")
    pairs = zip(rows[::2], rows[1::2], strict=True)
    assert check_order(ear) == [f"{one['words']} {other['words']}" for one, other in pairs]
    seconds = sum(event.usage.seconds for event in ear.of(".completed"))
    assert seconds == pytest.approx(len(demo_speech.samples) / demo_speech.rate, abs=0.01)


async def test_server_vad_gives_an_item_for_each_sentence(address: str, demo_speech: Speech) -> None:
    """With its start and end in time; the configuration says what is in effect."""
    async with session(address, {"type": "server_vad", "silence_duration_ms": 500, "threshold": 0.5}) as ear:
        await ear.send(at_24k(demo_speech))
        await ear.send(bytes(RATE * 2))  # a second of silence after the last word
        await ear.until(".completed", len(demo_speech.rows))
    effective = ear.of("session.updated")[0].session.audio.input
    assert effective.turn_detection.silence_duration_ms == 500
    assert effective.turn_detection.prefix_padding_ms == 300
    assert check_order(ear) == [row["words"] for row in demo_speech.rows]
    started = {event.item_id: event.audio_start_ms / 1000 for event in ear.of("speech_started")}
    stopped = {event.item_id: event.audio_end_ms / 1000 for event in ear.of("speech_stopped")}
    for (item, start), row in zip(started.items(), demo_speech.rows, strict=True):
        assert start == pytest.approx(row["start"] - 0.3, abs=0.35)
        assert stopped[item] == pytest.approx(row["end"] + 0.24, abs=0.4)


async def test_clear_and_broken_input_leave_the_session_usable(address: str, demo_speech: Speech) -> None:
    """What was cleared is never told; errors name what is wrong; the sentence after them is heard."""
    pcm = at_24k(demo_speech.cut(0, 1))
    other = at_24k(demo_speech.cut(1, 2))
    async with session(address, None) as ear:
        await ear.connection.input_audio_buffer.commit()
        await ear.connection.input_audio_buffer.append(audio="not base64!")
        await ear.connection.response.create()
        empty, bad, unknown = await ear.until("error", 3)
        assert empty.error.code == "input_audio_buffer_commit_empty"
        assert (bad.error.param, unknown.error.param) == ("audio", "type")
        await ear.send(pcm)
        await ear.connection.input_audio_buffer.clear()
        await ear.until("input_audio_buffer.cleared")
        await ear.send(other)
        await ear.connection.input_audio_buffer.commit()
        await ear.until(".completed")
    assert [event.transcript for event in ear.of(".completed")] == [demo_speech.rows[1]["words"]]


async def test_beta_shape_is_answered_in_its_shape(address: str, demo_speech: Speech) -> None:
    """As clients sent it before the API was final, with mu-law of a telephone."""
    sentence = demo_speech.cut(0, 1)
    update = {"input_audio_format": "g711_ulaw", "turn_detection": None}
    async with AsyncOpenAI(base_url=f"{address}/v1", api_key="any") as client:
        headers = {"OpenAI-Beta": "realtime=v1"}
        query = {"intent": "transcription"}
        async with client.realtime.connect(extra_query=query, extra_headers=headers) as connection:
            ear = Ear(connection)
            await connection.send({"type": "transcription_session.update", "session": update})  # type: ignore[arg-type]
            await ear.until("transcription_session.updated")
            await ear.send(mulaw(sentence))
            await connection.input_audio_buffer.commit()
            (completed,) = await ear.until(".completed")
        await asyncio.wait([ear.reading])
    assert ear.of("transcription_session.created")
    assert ear.of("conversation.item.created")
    assert not ear.of("conversation.item.added")
    assert completed.transcript == sentence.words


def mulaw(speech: Speech) -> bytes:
    """At 8 kHz, by the nearest value of each code."""
    from transcriber.audio.pcm import decode
    from transcriber.domain.chunks import AudioFormat, Encoding

    values = decode(bytes(range(256)), AudioFormat(Encoding.MULAW, 8_000, 1))[0]
    order = np.argsort(values)
    middles = (values[order][1:] + values[order][:-1]) / 2
    samples = soxr.resample(speech.samples, speech.rate, 8_000, "HQ")
    return bytes(order[np.searchsorted(middles, samples)].astype(np.uint8).tobytes())
