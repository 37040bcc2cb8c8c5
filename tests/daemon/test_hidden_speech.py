"""Audio that once hid its speech, and language hints in people's own spelling, through a real daemon."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import QUICK, STUB, Client, Daemon, NatsServer, Speech, check_tiles, s16
from otlp import Collector

from transcriber.domain import languages

RATE: dict[str, str | int] = {"audio_sample_rate": 16_000}
STEREO = RATE | {"audio_channels": 2}


@pytest.fixture
def utterance(heldout: Speech) -> Speech:
    return heldout.cut(4, 5)


async def send(client: Client, pcm: bytes, stream: str, session: str = "x", step: int = 6400, **headers: Any) -> None:
    """One session in chunks of 0.1 or 0.2 s, then its end."""
    for begin in range(0, len(pcm), step):
        await client.send(pcm[begin : begin + step], subject=f"audio.{stream}", audio_session=session, **headers)
    await client.send(subject=f"audio.{stream}", audio_session=session, audio_event="end", **headers)


async def test_speech_over_dc_and_hum_is_heard_as_without(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """Under quiet speech lie 1 % of DC, and hum louder than the pauses. As much of it is transcribed as without."""
    quiet = heldout.cut(0, 8).samples * 0.1
    time = np.arange(len(quiet)) / 16_000
    hum = 0.014 * np.sin(2 * np.pi * 50 * time)
    others = 0.014 * np.sin(2 * np.pi * 60 * time) + 0.007 * np.sin(2 * np.pi * 120 * time)
    under = {"clean": 0.0, "dc": 0.01, "hum": hum, "both": 0.01 + hum, "harmonic": others}
    async with Daemon(nats_server.url, script=STUB, **QUICK) as daemon:
        for stream, more in under.items():
            await send(client, s16(quiet + more), stream, **RATE)
        await client.until_count(len(under), "ended")
        assert await daemon.stop() == 0
    ended = {stream: client.of("ended", stream=stream)[0] for stream in under}
    assert ended["clean"]["transcribed"] > 0.5 * len(quiet) / 16_000
    for stream in under:
        check_tiles(client.of("final", "gap", stream=stream), ended[stream])
        assert ended[stream]["transcribed"] == pytest.approx(ended["clean"]["transcribed"], rel=0.05)


async def test_opposite_phase_is_transcribed_counted_and_logged_once(
    nats_server: NatsServer, client: Client, utterance: Speech
) -> None:
    """A plug with one wire crossed costs no word. The log says so once a session, the metric in samples."""
    crossed = s16(np.stack([utterance.samples, -utterance.samples], axis=1))
    equal = s16(np.stack([utterance.samples, utterance.samples], axis=1))
    async with (
        Collector() as collector,
        Daemon(nats_server.url, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, **QUICK) as daemon,
    ):
        await send(client, crossed, "crossed", "one", **STEREO)
        await daemon.logged("channels in opposite phase")
        await send(client, crossed, "other", "two", **STEREO)
        await send(client, equal, "equal", **STEREO)
        await client.until_count(3, "ended")
        reply = await client.nats.request(
            "transcribe.call", crossed, timeout=30, headers={"Audio-Sample-Rate": "16000", "Audio-Channels": "2"}
        )
        assert await daemon.stop() == 0
        await collector.until(lambda c: c.value("transcriber.samples.unmixed", stream="crossed") > 0)
    assert client.text("equal") == utterance.words
    assert client.text("crossed") == client.text("other") == utterance.words
    assert utterance.words in reply.data.decode()
    unmixed = collector.value("transcriber.samples.unmixed", stream="crossed")
    assert 0.5 * len(utterance.samples) < unmixed <= len(utterance.samples)
    assert collector.value("transcriber.samples.unmixed") == 2 * unmixed
    told = [(r["stream"], r.get("session")) for r in daemon.records if r["message"].startswith("channels in opposite")]
    assert told[:2] == [("crossed", "one"), ("other", "two")]
    assert [stream for stream, _ in told[2:]] == ["call"]


async def test_language_is_taken_in_any_spelling_or_logged_once(
    nats_server: NatsServer, client: Client, utterance: Speech
) -> None:
    """The engine gets Whisper's code.

    An unknown language rejects nothing, and one line a stream says what is allowed.
    """
    pcm = s16(utterance.samples)
    spelled = {"a": "de-DE", "b": "JPN", "c": "klingon", "d": "jv"}
    async with Daemon(nats_server.url, script=STUB, WHISPER_LANGUAGE="pt_BR", **QUICK) as daemon:
        for stream, language in spelled.items():
            await send(client, pcm, stream, audio_language=language, **RATE)
        await send(client, pcm, "c", "y", audio_language="elvish", **RATE)
        await client.until_count(len(spelled) + 1, "ended")
        asked = {}
        for value in ("fr-FR", "gibberish"):
            headers = {"Audio-Sample-Rate": "16000", "Audio-Language": value}
            reply = await client.nats.request("transcribe.call", pcm, timeout=30, headers=headers)
            asked[value] = reply.data.decode()
        assert await daemon.stop() == 0
    heard = {stream: {final["language"] for final in client.of("final", stream=stream)} for stream in spelled}
    assert heard == {"a": {"de"}, "b": {"ja"}, "c": {"en"}, "d": {"jw"}}  # the stub says "en" when it gets no hint
    assert '"language":"fr"' in asked["fr-FR"]
    assert '"language":"en"' in asked["gibberish"]
    assert not client.of("rejected")
    ignored = [r for r in daemon.records if r["message"] == "language hint ignored"]
    assert [(r["level"], r["stream"], r["header"], r["value"]) for r in ignored] == [
        ("warning", "c", "Audio-Language", "klingon"),
        ("warning", "call", "Audio-Language", "gibberish"),
    ]
    assert {r["allowed"] for r in ignored} == {languages.ALLOWED}
