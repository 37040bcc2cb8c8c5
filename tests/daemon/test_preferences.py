"""What a producer asks for by headers, through the real daemon: P-34 to P-37."""

from __future__ import annotations

import pytest
from asking import ask
from harness import Client, Daemon, Speech, s16

from transcriber.daemon.shutdown import ExitCode

RATE = 16_000
PLAIN = {"audio_sample_rate": str(RATE), "audio_session": "run"}


@pytest.fixture
def daemon(quick_daemon: Daemon) -> Daemon:
    return quick_daemon


@pytest.fixture
def speech(heldout: Speech) -> Speech:
    return heldout.cut(4, 5)


async def test_model_of_english_says_once_that_it_does_not_translate(
    client: Client, daemon: Daemon, speech: Speech
) -> None:
    """The stream gets one `rejected` event, and its words. The log has one line."""
    pcm = s16(speech.samples)
    for at in range(0, len(pcm), 3200):
        await client.send(pcm[at : at + 3200], **PLAIN, audio_task="translate", audio_prompt="train, engine")
    await client.send(**PLAIN, audio_event="end")
    await client.until_type("ended")
    (rejected,) = client.of("rejected")
    assert (rejected["session"], rejected["reason"]) == ("run", "task")
    assert client.text() == speech.words
    assert await daemon.stop() == ExitCode.CLEAN
    assert [r["stream"] for r in daemon.records if r["message"].startswith("not translated")] == ["s1"]


async def test_bad_preference_is_logged_once_and_costs_nothing(client: Client, daemon: Daemon, speech: Speech) -> None:
    """The log names the header, its value and what is allowed."""
    pcm = s16(speech.samples)
    for at in range(0, len(pcm), 3200):
        await client.send(pcm[at : at + 3200], **PLAIN, audio_timeout="soon")
    await client.send(**PLAIN, audio_event="end")
    await client.until_type("ended")
    assert client.text() == speech.words
    assert client.of("rejected") == []
    assert await daemon.stop() == ExitCode.CLEAN
    (line,) = [r for r in daemon.records if r["message"] == "header ignored"]
    assert (line["stream"], line["header"], line["value"]) == ("s1", "Audio-Timeout", "soon")
    assert "86400" in line["allowed"]


async def test_session_of_a_killed_producer_ends_after_its_timeout(
    client: Client, daemon: Daemon, speech: Speech
) -> None:
    """SESSION_TIMEOUT_SECS is 300. A session without the header stays."""
    for subject, more in (("audio.s1", {"audio_timeout": "1"}), ("audio.s2", {})):
        await client.send(s16(speech.samples), subject=subject, **PLAIN, **more)
    assert (await client.until_type("ended"))["stream"] == "s1"
    assert client.of("ended", stream="s2") == []
    assert client.text("s1") == speech.words
    assert await daemon.stop() == ExitCode.CLEAN


async def test_request_takes_a_prompt_and_refuses_what_cannot_be(
    client: Client, daemon: Daemon, speech: Speech
) -> None:
    """A translation by a model that knows English alone, and a preference that is not allowed, get 400."""
    raw, pcm = {"Audio-Sample-Rate": str(RATE)}, s16(speech.samples)
    answer = await ask(client, pcm, headers=raw | {"Audio-Prompt": "train, engine", "Audio-Task": "transcribe"})
    assert (answer.code, answer.body["text"], answer.body["closed"]) == (None, speech.words, "end")
    refused = await ask(client, pcm, headers=raw | {"Audio-Task": "translate"})
    assert refused.code == "400"
    assert "ggml-dispatch-mini knows English alone" in (refused.error or "")
    refused = await ask(client, pcm, headers=raw | {"audio-task": "sing"})
    assert (refused.code, refused.error) == ("400", "Audio-Task='sing'; allowed: transcribe or translate")
    assert await daemon.stop() == ExitCode.CLEAN
