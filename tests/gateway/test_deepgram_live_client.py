"""Deepgram's official client, unchanged, with live speech: words, order, times, pauses and channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import soxr
from deepgram import AsyncDeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment
from deepgram.listen.v1.types import ListenV1Configure
from harness import PATIENCE, Speech, s16
from served import check_words
from websockets.exceptions import ConnectionClosedError

if TYPE_CHECKING:  # its import warns
    from deepgram.listen.v1.socket_client import AsyncV1SocketClient

pytestmark = [
    pytest.mark.filterwarnings("ignore:websockets:DeprecationWarning"),  # which the client imports
    pytest.mark.filterwarnings("ignore:The `dict` method:DeprecationWarning"),  # which the client calls
]
PAUSE = 1.0  # seconds without a word that end an utterance


class Ear:
    """A connection, and everything that it has received."""

    def __init__(self, socket: AsyncV1SocketClient) -> None:
        self.socket = socket
        self.heard: list[Any] = []
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.socket:
            self.heard.append(message)
            self._changed.set()

    async def until(self, wanted: Callable[[Any], bool]) -> Any:
        """Wait for a message that fits; those received before count."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for message in self.heard:
                    if wanted(message):
                        return message
                self._changed.clear()
                await self._changed.wait()

    async def send(self, pcm: bytes, size: int = 3200) -> None:
        for start in range(0, len(pcm), size):
            await self.socket.send_media(pcm[start : start + size])

    async def closed(self) -> int | None:
        """Say that there is no more, read to the end, and return the close code."""
        await self.socket.send_close_stream()
        async with asyncio.timeout(PATIENCE):
            await self._reading
        return self.socket._websocket.close_code

    def of(self, kind: str) -> list[Any]:
        return [message for message in self.heard if message.type == kind]

    def finals(self, channel: int = 0) -> list[Any]:
        return [result for result in self.of("Results") if result.is_final and result.channel_index[0] == channel]

    def words(self, channel: int = 0) -> list[tuple[str, float, float]]:
        finals = [result.channel.alternatives[0] for result in self.finals(channel)]
        return [(word.word, word.start, word.end) for final in finals for word in final.words]


@asynccontextmanager
async def listening(address: str, **asked: Any) -> AsyncIterator[Ear]:
    socket = address.replace("http", "ws", 1)
    places = DeepgramClientEnvironment(base=address, production=socket, agent=socket, agent_rest=address)
    async with httpx.AsyncClient() as connections:  # its own would stay open
        client = AsyncDeepgramClient(api_key="any", environment=places, httpx_client=connections)
        async with client.listen.v1.connect(**{"model": "nova-3", "encoding": "linear16", **asked}) as connection:
            yield Ear(connection)


async def test_live_speech_comes_back_word_by_word(address: str, demo_speech: Speech) -> None:
    """Interim results grow into finals; pauses are told as such, and where utterances end; Metadata is the last."""
    asked = {"interim_results": True, "vad_events": True, "utterance_end_ms": 1000, "smart_format": True, "tag": "x"}
    async with listening(address, sample_rate=demo_speech.rate, **asked) as ear:
        await ear.socket.send_keep_alive()
        await ear.send(s16(demo_speech.samples))
        assert await ear.closed() == 1000
    check_words(ear.words(), demo_speech)
    spoken = [result for result in ear.finals() if result.channel.alternatives[0].transcript]
    assert " ".join(result.channel.alternatives[0].transcript for result in spoken) == demo_speech.words
    assert all(0.5 < result.channel.alternatives[0].confidence <= 1 for result in spoken)
    ends = [(a["end"], b["start"]) for a, b in zip(demo_speech.rows, demo_speech.rows[1:], strict=False)]
    long = [end for end, start in ends if start - end > PAUSE + 0.2]  # a word's times may be off by as much
    told = [message.last_word_end for message in ear.of("UtteranceEnd")]
    assert all(any(end == pytest.approx(one, abs=0.35) for one in told) for end in long)
    assert len(told) <= len([end for end, start in ends if start - end > PAUSE - 0.2]) + 1  # and the last one
    assert len(ear.of("SpeechStarted")) >= len(demo_speech.rows)
    metadata = ear.heard[-1]
    assert (metadata.type, metadata.channels) == ("Metadata", 1)
    assert metadata.duration == pytest.approx(len(demo_speech.samples) / demo_speech.rate, abs=1e-3)
    assert metadata.request_id == spoken[0].metadata.request_id
    assert spoken[0].metadata.model_info.name.startswith("ggml-")


async def test_finalize_brings_what_was_said_at_once(address: str, demo_speech: Speech) -> None:
    """In the middle of a sentence and over silence: one flagged result each, and no word is lost between."""
    row = demo_speech.rows[3]
    middle = int((row["start"] + row["end"]) / 2 * demo_speech.rate)
    async with listening(address, sample_rate=demo_speech.rate) as ear:
        await ear.send(s16(demo_speech.samples[:middle]))
        await ear.socket.send_finalize()
        first = await ear.until(lambda message: message.type == "Results" and message.from_finalize)
        await ear.socket.send_finalize()
        second = await ear.until(lambda m: m.type == "Results" and m.from_finalize and m is not first)
        assert first.channel.alternatives[0].transcript
        assert not second.channel.alternatives[0].transcript
        assert first.start + first.duration == pytest.approx(middle / demo_speech.rate, abs=0.01)
        await ear.send(s16(demo_speech.samples[int(demo_speech.rows[4]["start"] * demo_speech.rate - 8000) :]))
        assert await ear.closed() == 1000
    assert len([result for result in ear.finals() if result.from_finalize]) == 2
    text = " ".join(word for word, _, _ in ear.words())
    assert text.startswith(" ".join(row["words"] for row in demo_speech.rows[:3]))
    assert text.endswith(" ".join(row["words"] for row in demo_speech.rows[4:]))


async def test_channels_are_heard_apart(address: str, demo_speech: Speech) -> None:
    """Two people on a call, at the rate of a telephone."""
    half = len(demo_speech.samples) // 2
    both = np.stack([demo_speech.samples, np.roll(demo_speech.samples, half)], axis=1)
    sides = soxr.resample(both, demo_speech.rate, 24_000, "HQ")
    async with listening(address, sample_rate=24_000, channels=2, multichannel=True) as ear:
        await ear.send(s16(sides), 9601)  # no whole number of samples
        assert await ear.closed() == 1000
    check_words(ear.words(0), demo_speech)
    rows = [*demo_speech.rows[4:], *demo_speech.rows[:4]]  # the turn lies in the pause before the fifth
    assert [word for word, _, _ in ear.words(1)] == " ".join(row["words"] for row in rows).split()
    assert {result.channel_index[1] for result in ear.of("Results")} == {2}
    assert ear.heard[-1].channels == 2


async def test_configure_fails_and_the_connection_goes_on(address: str, demo_speech: Speech) -> None:
    """The client learns why."""
    async with listening(address, sample_rate=demo_speech.rate) as ear:
        await ear.socket.send_configure(ListenV1Configure(keyterms=["Havel"]))
        failure = await ear.until(lambda message: message.type == "ConfigureFailure")
        assert failure.code == "CONFIGURE_KEYTERMS_NOT_SUPPORTED"
        assert await ear.closed() == 1000
    assert ear.heard[-1].duration == 0


@pytest.mark.parametrize("asked", [{"encoding": "opus"}, {"sample_rate": 7}, {"language": "tlh"}])
async def test_query_that_cannot_be_met_is_refused(address: str, asked: dict[str, Any]) -> None:
    """Before the WebSocket opens."""
    with pytest.raises(ApiError) as refusal:
        async with listening(address, **{"sample_rate": 16_000, **asked}):
            pass
    assert refusal.value.status_code == 400


@pytest.mark.slow
async def test_client_that_says_nothing_is_told_so(address: str) -> None:
    """After ten seconds, with Deepgram's code."""
    async with listening(address, sample_rate=16_000) as ear:
        with pytest.raises(ConnectionClosedError, match=r"1011 .*NET-0001"):
            await asyncio.wait_for(ear._reading, PATIENCE)
