"""Whole recordings on request: NATS's own request and reply, the same queue, and no stream's account touched."""

from __future__ import annotations

import asyncio
import io
import json
from types import SimpleNamespace
from unittest.mock import Mock

import nats.errors
import numpy as np
import pytest
import soundfile
from asking import ask
from harness import QUICK, STUB, Client, Daemon, NatsServer, Speech, check_tiles, s16
from scripted import finish, take

from transcriber.audio.segmenter import StreamOptions
from transcriber.domain.measurements import Tallies
from transcriber.domain.results import Recognition
from transcriber.domain.timeline import GapReason
from transcriber.pipeline.requests import RequestHandler
from transcriber.protocol.incoming import InputOptions
from transcriber.worker.jobs import Outcome
from transcriber.worker.queue import JobQueue

RAW = {"Audio-Sample-Rate": "16000"}
SLOW = QUICK | {"STUB_WARM_SECS": "0"}


def recording(speech: Speech, **form: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, speech.samples, speech.rate, **form)
    return file.getvalue()


@pytest.fixture
def daemon(quick_daemon: Daemon) -> Daemon:
    return quick_daemon


@pytest.fixture
def speech(heldout: Speech) -> Speech:
    return heldout.cut(3, 6)


async def test_a_recording_in_any_form_is_answered_with_its_words(
    client: Client, daemon: Daemon, speech: Speech
) -> None:
    """Raw PCM with headers, WAV, FLAC and OGG each give one `final` over the whole recording, and no event."""
    forms: list[tuple[bytes, dict[str, str] | None]] = [
        (s16(speech.samples), RAW | {"Audio-Session": "\0", "Audio-Offset": "x", "Audio-Event": "end"}),
        (speech.samples.astype("<f4").tobytes(), RAW | {"Audio-Encoding": "pcm_f32le"}),
        (recording(speech, format="WAV", subtype="PCM_16"), None),
        (recording(speech, format="WAV", subtype="PCM_24"), {"Audio-Sample-Rate": "8000"}),
        (recording(speech, format="RF64"), None),
        (recording(speech, format="FLAC"), {"Audio-Tenant": "acme"}),
        (recording(speech, format="OGG", subtype="VORBIS"), None),
        (recording(speech, format="AIFF"), None),
        (s16(speech.samples), {"audio-SAMPLE-rate": "16000"}),
    ]
    for payload, headers in forms:
        answer = await ask(client, payload, headers=headers)
        body = answer.body
        assert body["text"] == speech.words
        assert (body["type"], body["stream"], body["start"]) == ("final", "call", 0)
        assert round(body["end"] * 16000) == len(speech.samples)
        assert body.get("tenant") == (headers or {}).get("Audio-Tenant")
        bounds = [segment["start"] for segment in body["segments"]]
        assert bounds == sorted(bounds)
        for row, segment in zip(speech.rows, body["segments"], strict=True):
            assert segment["start"] <= row["start"] + 0.1
            assert segment["end"] >= row["end"] - 0.2
    assert client.heard == []
    assert await daemon.stop() == 0
    assert daemon.stderr == ""


async def test_mp3_is_heard(client: Client, daemon: Daemon, speech: Speech) -> None:
    """The coder adds silence at both ends. The words are the same."""
    assert (await ask(client, recording(speech, format="MP3"))).body["text"] == speech.words
    assert await daemon.stop() == 0


async def test_a_request_touches_no_streams_account(client: Client, daemon: Daemon, speech: Speech) -> None:
    """A live stream of the same name goes on in mid-utterance as if nobody had asked."""
    pcm = s16(speech.samples)
    half = len(pcm) // 4 * 2
    await client.send(pcm[:half], subject="audio.call", audio_session="run", audio_sample_rate=16000)
    await client.until_type("started")
    assert (await ask(client, pcm, headers=RAW)).body["text"] == speech.words
    await client.send(pcm[half:], subject="audio.call", audio_session="run", audio_sample_rate=16000, audio_event="end")
    ended = await client.until_type("ended")
    check_tiles(client.heard, ended)
    assert round(ended["received"] * 16000) == len(speech.samples)
    assert client.text("call") == speech.words
    assert await daemon.stop() == 0
    assert daemon.summary["seconds"]["received"] == round(ended["received"], 3)


BAD: list[tuple[bytes, dict[str, str], str]] = [
    (b"", {}, "no payload"),
    (b"\0\0\0", {}, "3 bytes are not a whole number of 2-byte sample frames"),
    (b"\0\0", {"Audio-Encoding": "mp3"}, "Audio-Encoding='mp3'; allowed: pcm_s16le"),
    (b"\0\0", {"Audio-Sample-Rate": "1"}, "Audio-Sample-Rate='1'; allowed: 8000 to 192000"),
    (b"\0\0", {"Audio-Channels": "0"}, "Audio-Channels='0'; allowed: 1 to 8"),
    (bytes(200_001), {}, "200001 bytes; AUDIO_MAX_CHUNK_BYTES=200000"),
    (b"RIFF" + bytes(200_000), {}, "200004 bytes; AUDIO_MAX_CHUNK_BYTES=200000"),
    (b"RIFF", {}, "no WAV, FLAC or OGG that can be decoded"),
    (b"fLaC" + b"\xff" * 1000, {}, "no WAV, FLAC or OGG that can be decoded"),
    (b"OggS" + bytes(1000), {}, "no WAV, FLAC or OGG that can be decoded"),
    (b"\0\0\0\x1cftypM4A " + bytes(1000), {}, "the payload is MP4; allowed: raw PCM, or a file of AIFF"),
    (
        b"\x1aE\xdf\xa3\x9fB\x86\x81\1B\xf7\x81\1B\xf2\x81\4B\xf3\x81\x08B\x82\x84webm" + bytes(99),
        {},
        "the payload is WebM",
    ),
    (b'{"audio": "UklGRiQAAABXQVZFZm10IBAAAAABAAEA"}', {}, "the payload is JSON"),
    (b"UklGRiQAAABXQVZFZm10IBAAAAABAAEAgD4AAAB9AAACABAAZGF0YQAAAAAnKywtLi8w", {}, "base64 of WAV"),
]


async def test_bad_request_is_refused_with_400_and_a_useful_text(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """Each mistake is named with what is allowed, and the next good recording is transcribed."""
    speech = heldout.cut(4, 5)
    slow = io.BytesIO()
    soundfile.write(slow, speech.samples, 4000, format="WAV")
    flac = recording(speech, format="FLAC")
    broken = flac[:10_000] + bytes(10_000) + flac[20_000:]
    bad = [*BAD, (slow.getvalue(), {}, "4000 Hz"), (broken, {}, "damaged")]
    async with Daemon(nats_server.url, AUDIO_MAX_CHUNK_BYTES="200000", **QUICK) as daemon:
        for payload, headers, text in bad:
            answer = await ask(client, payload, headers=headers)
            assert answer.code == "400", (text, answer)
            assert answer.error is not None
            assert text in answer.error
        assert "[A-Za-z0-9_-]" in ((await ask(client, b"\0\0", name="straße")).error or "")
        assert (await ask(client, flac)).body["text"] == speech.words
        assert await daemon.stop() == 0
        assert daemon.stderr == ""
    assert client.heard == []


@pytest.mark.usefixtures("daemon")
async def test_silence_is_an_empty_text(client: Client) -> None:
    """A recording without speech, and a file without a single frame: a valid answer that says nothing."""
    for samples in (48_000, 0):
        file = io.BytesIO()
        soundfile.write(file, np.zeros(samples, np.float32), 16000, format="WAV")
        body = (await ask(client, file.getvalue())).body
        assert (body["text"], body["segments"], body["end"]) == ("", [], samples / 16000)


async def test_a_full_queue_is_503(nats_server: NatsServer, client: Client, speech: Speech) -> None:
    """Five requests come at once into a queue for one. One is transcribed, four get 503, and later ones find room."""
    async with Daemon(
        nats_server.url, script=STUB, STUB_SECS="0.3", TRANSCRIPTION_QUEUE_CAPACITY="1", **SLOW
    ) as daemon:
        payload = recording(speech, format="FLAC")
        answers = await asyncio.gather(*(ask(client, payload, name=f"n{i}") for i in range(5)))
        refused = [answer for answer in answers if answer.code is not None]
        assert len(refused) == 4
        assert {(answer.code, answer.error) for answer in refused} == {("503", "the queue is full (1 jobs)")}
        assert (await ask(client, payload)).body["text"].count("stub") == 3
        assert await daemon.stop() == 0


async def test_an_engine_failure_is_500(nats_server: NatsServer, client: Client, heldout: Speech) -> None:
    """One failing window fails its request with the engine's own words. The next request is served."""
    payload = s16(heldout.cut(4, 5).samples)
    async with Daemon(nats_server.url, script=STUB, STUB_FAIL_EVERY="2", **QUICK) as daemon:
        failed = await ask(client, payload, headers=RAW)
        assert (failed.code, failed.error) == ("500", "engine_error: the stub was told to fail")
        assert (await ask(client, payload, headers=RAW)).code is None
        assert await daemon.stop() == 0
        assert daemon.stderr == ""


async def test_a_request_that_cannot_be_finished_at_shutdown_is_503(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """A window is stuck in the engine. The client is told and does not wait for its own timeout."""
    stuck = SLOW | {"STUB_SECS": "3600", "SHUTDOWN_GRACE_SECS": "0.5", "LOG_LEVEL": "DEBUG"}
    async with Daemon(nats_server.url, script=STUB, **stuck) as daemon:
        asking = asyncio.create_task(ask(client, s16(heldout.cut(4, 5).samples), headers=RAW))
        stats = {"num_requests": 0}
        while not stats["num_requests"]:
            reply = await client.nats.request("$SRV.STATS.transcriber", timeout=5)
            (stats,) = json.loads(reply.data)["endpoints"]
        assert await daemon.stop() == 0
        answer = await asking
        assert (answer.code, answer.error) == ("503", "the daemon is stopping")
        assert daemon.stderr == ""
        assert not [r for r in daemon.records if r["level"] == "error"]


async def test_the_services_api_answers(client: Client, daemon: Daemon, heldout: Speech) -> None:
    """PING, INFO and STATS tell the service's name, its input and its counts."""
    await ask(client, s16(heldout.cut(4, 5).samples), headers=RAW)
    await ask(client, b"")
    answers = {}
    for verb in ("PING", "INFO", "STATS"):
        reply = await client.nats.request(f"$SRV.{verb}.transcriber", timeout=5)
        answers[verb] = json.loads(reply.data)
        assert answers[verb]["type"] == f"io.nats.micro.v1.{verb.lower()}_response"
        assert answers[verb]["name"] == "transcriber"
    assert answers["INFO"]["endpoints"][0]["subject"] == "transcribe.*"
    (stats,) = answers["STATS"]["endpoints"]
    assert (stats["num_requests"], stats["num_errors"]) == (2, 1)
    assert await daemon.stop() == 0
    with pytest.raises(nats.errors.NoRespondersError):
        await client.nats.request("$SRV.PING.transcriber", timeout=5)


async def test_request_without_a_reply_subject_is_only_logged(client: Client, daemon: Daemon) -> None:
    """Nobody waits for an answer, so nothing is transcribed."""
    await client.nats.publish("transcribe.call", bytes(32_000))
    record = await daemon.logged("a request without a reply subject")
    assert (record["level"], record["subject"]) == ("warning", "transcribe.call")
    assert await daemon.stop() == 0
    assert daemon.stderr == ""


async def test_result_of_an_abandoned_request_is_dropped_quietly(heldout: Speech) -> None:
    """The engine finishes when nobody waits any more. The event loop sees no exception, and the span has an end."""
    queue, observer = JobQueue(1), Mock()
    recordings = RequestHandler(
        queue,
        observer,
        Mock(),
        Tallies(),
        stream_options=StreamOptions(),
        input_options=InputOptions(),
        max_latency=20,
        max_payload=lambda: 10**6,
        worker=SimpleNamespace(model="stub", multilingual=False),
    )
    answering = asyncio.create_task(recordings.admit("call", RAW, s16(heldout.cut(4, 5).samples)))
    job = await asyncio.to_thread(take, queue)
    assert job is not None
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    job.deliver(
        Outcome(
            window=job.window,
            recognition=None,
            reason=GapReason.ENGINE_ERROR,
            detail="late",
            enqueued=job.enqueued,
            queued=0.0,
            processing=0.0,
        )
    )
    observer.start.return_value.end.assert_called_once_with(GapReason.SHUTDOWN, failed=True)


async def test_an_answer_names_every_model_that_made_it(heldout: Speech) -> None:
    """A recording of several windows may begin with one model and end with its successor."""
    queue = JobQueue(1)
    recordings = RequestHandler(
        queue,
        Mock(),
        Mock(),
        Tallies(),
        stream_options=StreamOptions(),
        input_options=InputOptions(),
        max_latency=20,
        max_payload=lambda: 10**6,
        worker=SimpleNamespace(model="two", multilingual=False),
    )
    answering = asyncio.create_task(recordings.admit("call", RAW, s16(heldout.cut(4, 7).samples)))
    for model in ("one", "one", "two"):
        job = await asyncio.to_thread(take, queue)
        assert job is not None
        finish(queue)
        recognition = Recognition((), "en", model)
        job.deliver(
            Outcome(
                window=job.window,
                recognition=recognition,
                reason=None,
                detail="",
                enqueued=job.enqueued,
                queued=0.0,
                processing=0.0,
            )
        )
    assert json.loads((await answering).payload)["model"] == "one, two"
