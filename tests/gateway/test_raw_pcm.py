"""The project's own WebSocket, through a real gateway, server and daemon."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness import Speech, s16
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

STREAM = "/v2/decode/stream/any"


async def test_raw_pcm_comes_back_as_words_with_times(sockets: str, demo_speech: Speech) -> None:
    """Finals with every word in order, the account at the end, and how busy the workers are in between."""
    wanted = f"{sockets}{STREAM}?sample_rate=48000&queue_status=1"
    async with connect(wanted) as client:
        pcm = s16(demo_speech.samples)
        for start in range(0, len(pcm), 96_000):
            await client.send(pcm[start : start + 96_000])
        await client.send('{"type": "end"}')
        told: list[dict[str, Any]] = [json.loads(message) async for message in client]
    assert client.close_code == 1000
    finals = [message for message in told if message["type"] == "final" and message["transcription"]]
    assert " ".join(final["transcription"] for final in finals) == demo_speech.words
    words = [word for final in finals for word in final["words"]]
    assert " ".join(word["word"] for word in words) == demo_speech.words
    starts = [word["start"] for word in words]
    assert starts == sorted(starts)
    assert abs(starts[0] - demo_speech.rows[0]["start"]) < 0.5
    last = told[-1]
    assert (last["type"], last["gap"]) == ("ended", {})
    assert last["received"] == pytest.approx(len(demo_speech.samples) / demo_speech.rate, abs=0.01)
    status = next(message for message in told if message["type"] == "queue_status")
    assert status.keys() == {"type", "pending", "capacity", "estimated_wait", "rtf", "workers"}
    assert status["workers"] == 1
    assert 0 <= status["pending"] <= status["capacity"]
    assert status["capacity"] >= 1
    assert status["rtf"] > 0


@pytest.mark.parametrize("query", ["sample_rate=16k", "encoding=opus", "channels=9", "language=xx"])
async def test_bad_parameter_is_refused_before_the_upgrade(sockets: str, query: str) -> None:
    """With 400, and the parameter's name."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"{sockets}{STREAM}?{query}")
    assert caught.value.response.status_code == 400
    problem = json.loads(caught.value.response.body)["error"]
    assert problem["param"] == query.partition("=")[0]
    assert problem["message"].startswith(query.replace("=", "='"))


async def test_flush_closes_a_window_in_the_middle_of_speech(sockets: str, demo_speech: Speech) -> None:
    """Its text comes before `flushed`, and the session goes on."""
    first, second = demo_speech.cut(0, 1, margin=0.2), demo_speech.cut(1, 2, margin=0.2)
    async with connect(f"{sockets}{STREAM}?sample_rate=48000") as client:
        await client.send(s16(first.samples[: -first.rate // 5]))
        await client.send('{"type": "flush"}')
        told = []
        while not told or told[-1]["type"] != "flushed":
            told.append(json.loads(await client.recv()))
        assert " ".join(m["transcription"] for m in told if m["type"] == "final") == first.words
        await client.send(s16(second.samples))
        await client.send('{"type": "end"}')
        rest = [json.loads(message) async for message in client]
    assert " ".join(filter(None, (m["transcription"] for m in rest if m["type"] == "final"))) == second.words


async def test_page_may_send_its_key_as_a_subprotocol(sockets: str) -> None:
    """A browser takes the connection only if the server chooses one of those that it offered."""
    async with connect(f"{sockets}{STREAM}", subprotocols=["token", "a-key"]) as client:
        assert client.subprotocol == "token"
