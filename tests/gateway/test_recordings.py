"""Recordings through the gateway and a real server, to workers that refuse, are silent, or take their time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import numpy as np
import pytest
from audio_files import encoded
from gateways import gateway
from harness import PATIENCE, NatsServer
from scripted_workers import Asked, Refusal, Script, ScriptedWorker

from transcriber.audio.cutting import Cutter
from transcriber.gateway import keys
from transcriber.gateway.parts import Parts
from transcriber.gateway.rest import openai, recordings
from transcriber.gateway.rest.openai import OpenAI
from transcriber.gateway.rest.recordings import Recordings
from transcriber.gateway.rest.seed import Seed

RATE = 16_000


class Site:
    """A gateway with one recording to send, and what it has in work."""

    def __init__(self) -> None:
        self.url = ""
        self.recordings: Recordings | None = None

    def register(self, parts: Parts) -> None:
        self.recordings = Recordings(parts)
        for protocol in (OpenAI, Seed):
            protocol(parts, self.recordings).register()

    async def idle(self) -> None:
        """Wait until no part is on its way."""
        assert self.recordings is not None
        async with asyncio.timeout(PATIENCE):
            while self.recordings._under_way._value < recordings._PARTS:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.fixture
async def workers(nats_server: NatsServer) -> AsyncIterator[Callable[..., Awaitable[list[ScriptedWorker]]]]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(*scripts: Script) -> list[ScriptedWorker]:
            return [await stack.enter_async_context(ScriptedWorker(nats_server.url, script)) for script in scripts]

        yield start


@pytest.fixture
async def site(nats_server: NatsServer) -> AsyncIterator[Callable[..., Awaitable[Site]]]:
    """Starts a gateway, after the workers."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**options: Any) -> Site:
            made = Site()
            serving = await stack.enter_async_context(gateway(nats_server.url, made.register, **options))
            made.url = f"http://127.0.0.1:{serving.port}"
            return made

        yield start


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """Two minutes and a half with a pause every seven seconds: six parts."""
    samples = 0.1 * np.random.default_rng(1).standard_normal(150 * RATE)
    for start in range(7 * RATE, len(samples), 7 * RATE):
        samples[start : start + RATE // 2] = 0
    return samples.astype(np.float32)


@pytest.fixture(scope="module")
def flac(noise: np.ndarray) -> bytes:
    return encoded(noise, RATE, container="FLAC")


def form(audio: bytes, **fields: str) -> aiohttp.FormData:
    made = aiohttp.FormData()
    for name, value in fields.items():
        made.add_field(name, value)
    made.add_field("file", io.BytesIO(audio), filename="a.bin", content_type="audio/wav")
    return made


async def transcribed(
    http: aiohttp.ClientSession, site: Site, audio: bytes, **fields: str
) -> tuple[aiohttp.ClientResponse, dict[str, Any]]:
    fields = {"response_format": "verbose_json"} | fields
    async with http.post(f"{site.url}/v1/audio/transcriptions", data=form(audio, **fields)) as answer:
        return answer, json.loads(await answer.text())


def digest(pcm: bytes) -> str:
    return hashlib.sha256(pcm).hexdigest()[:8]


async def name_it(asked: Asked) -> str:
    """The text of a part is its digest, after a while that differs from part to part."""
    await asyncio.sleep(asked.pcm[0] / 2560)
    return digest(asked.pcm)


async def test_parts_go_to_all_workers_and_come_back_in_order(workers, site, http, noise, flac) -> None:
    """Whoever answers first: the texts are joined by time, and every sample is in exactly one part."""
    crew = await workers(name_it, name_it, name_it)
    serving = await site()
    answer, body = await transcribed(http, serving, flac)
    assert answer.status == 200
    cutter = Cutter(30 * RATE)
    parts = [*cutter.push(np.round(noise * 32768).clip(-32768, 32767).astype(np.float32) / 32768), *cutter.flush()]
    assert len(parts) == 6
    pcm = [(np.rint(part.samples * 32768)).astype("<i2").tobytes() for part in parts]
    assert body["text"].split() == [digest(one) for one in pcm]
    assert [s["start"] for s in body["segments"]] == [part.start / RATE for part in parts]
    assert body["duration"] == 150
    assert sum(len(worker.asked) for worker in crew) == 6
    assert all(len(asked.pcm) <= 30 * RATE * 2 for worker in crew for asked in worker.asked)
    assert "x-transcriber-gaps" not in answer.headers
    await serving.idle()


async def test_refused_part_is_sent_again(workers, site, http, flac) -> None:
    """Full queues and failing engines: the answer is whole, and nobody learns of it."""

    async def moody(asked: Asked) -> str:
        if asked.number in {0, 2, 3}:
            raise Refusal(503, "the queue is full (1 jobs)")
        if asked.number == 5:
            raise Refusal(500, "engine_error: it failed")
        return "yes"

    (worker,) = await workers(moody)
    answer, body = await transcribed(http, await site(), flac)
    assert (answer.status, body["text"]) == (200, "yes yes yes yes yes yes")
    assert "gaps" not in body
    assert len(worker.asked) == 10


async def test_silent_worker_is_asked_again(workers, site, http, flac, monkeypatch) -> None:
    """A worker that died with a part in its hands answers nothing."""
    monkeypatch.setattr(recordings, "_ANSWER_SECS", 0.2)
    monkeypatch.setattr(recordings, "_ANSWER_OF_AUDIO", 0.0)

    async def dead_once(asked: Asked) -> str:
        if asked.number == 1:
            await asyncio.Event().wait()
        return "yes"

    (worker,) = await workers(dead_once)
    answer, body = await transcribed(http, await site(), flac)
    assert (answer.status, body["text"]) == (200, "yes yes yes yes yes yes")
    assert len(worker.asked) == 7


async def test_parts_of_a_dead_worker_go_to_another(workers, site, http, flac) -> None:
    """Long before their time is up: a part of half a minute may take a minute and more."""
    first: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def script(number: int) -> Script:
        """The worker that is asked first answers nothing. The server chooses it by chance."""

        async def answer(_asked: Asked) -> str:
            if not first.done():
                first.set_result(number)
            if await first == number:
                await asyncio.Event().wait()
            return "yes"

        return answer

    crew = await workers(script(0), script(1))
    asking = asyncio.create_task(transcribed(http, await site(), flac))
    async with asyncio.timeout(PATIENCE):
        await crew[await first].die()
        answer, body = await asking
    assert (answer.status, body["text"]) == (200, "yes yes yes yes yes yes")


async def test_lost_part_is_told_with_its_bounds(workers, site, http, flac) -> None:
    """In the header and in the answer, with the daemon's reason; the rest of the text is there."""
    first: list[str] = []

    async def hates_the_second(asked: Asked) -> str:
        if digest(asked.pcm) not in first:
            first.append(digest(asked.pcm))
        if first.index(digest(asked.pcm)) == 1:
            raise Refusal(500, "engine_error: it always fails here")
        return "yes"

    await workers(hates_the_second)
    answer, body = await transcribed(http, await site(), flac)
    assert (answer.status, body["text"]) == (200, "yes yes yes yes yes")
    (gap,) = body["gaps"]
    before, after = body["segments"][0], body["segments"][1]
    assert (gap["start"], gap["end"], gap["reason"]) == (before["end"], after["start"], "engine_error")
    assert answer.headers["x-transcriber-gaps"] == f"{gap['start']:.3f}-{gap['end']:.3f};engine_error"


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal(503, "the queue is full (1 jobs)"), "server_error"),
        (Refusal(500, "engine_error: it failed"), "server_error"),
        (Refusal(400, "Audio-Channels='7'"), "invalid_request_error"),
    ],
    ids=str,
)
async def test_recording_of_which_all_is_lost_is_refused(  # noqa: PLR0913, PLR0917 - fixtures
    workers, site, http, flac, refusal: Refusal, kind: str
) -> None:
    """Once patience is over; with a time to try again where that may help."""

    async def never(_asked: Asked) -> str:
        raise refusal

    await workers(never)
    serving = await site(patience=0.3)
    answer, body = await transcribed(http, serving, flac)
    error = body["error"]
    assert (answer.status, error["type"], error["message"]) == (refusal.code, kind, refusal.detail)
    assert ("Retry-After" in answer.headers) == (refusal.code == 503)
    await serving.idle()


async def test_client_that_goes_away_frees_its_parts(workers, site, http, flac) -> None:
    """What it has not been told by then is not asked for."""
    held = asyncio.Event()

    async def slow(_asked: Asked) -> str:
        await held.wait()
        return "yes"

    (worker,) = await workers(slow)
    serving = await site()
    asking = asyncio.create_task(transcribed(http, serving, flac))
    async with asyncio.timeout(PATIENCE):
        while len(worker.asked) < 2:  # noqa: ASYNC110 - a real message over a real server
            await asyncio.sleep(0.01)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await serving.idle()
    held.set()
    _, body = await transcribed(http, serving, encoded(np.zeros(RATE, np.float32), RATE))
    assert body["text"] == "yes"
    assert len(worker.asked) == 3


async def test_stream_is_kept_alive_and_ends_with_the_text(workers, site, http, flac, monkeypatch) -> None:
    """Comments come while nothing else does, and clients skip them."""
    monkeypatch.setattr(openai, "KEEP_ALIVE_SECS", 0.05)
    seen = asyncio.Event()

    async def slow(asked: Asked) -> str:
        if asked.number == 1:
            await seen.wait()
        return f"part{asked.number}"

    await workers(slow)
    serving = await site()
    lines = []
    url = f"{serving.url}/v1/audio/transcriptions"
    async with http.post(url, data=form(flac, stream="true")) as answer:
        assert answer.content_type == "text/event-stream"
        assert answer.headers["x-request-id"]
        async for line in answer.content:
            lines.append(line.decode().strip())
            if lines[-1] == ": keep-alive" and any("part0" in before for before in lines):
                seen.set()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(event["delta"] for event in events[:-1]) == events[-1]["text"]
    assert events[-1]["text"].split() == [f"part{i}" for i in range(6)]
    assert [line for line in lines if line][-1] == "data: [DONE]"


async def test_stream_tells_what_went_wrong(workers, site, http, noise, monkeypatch) -> None:
    """Before its first word by status; later as an event that clients raise."""
    monkeypatch.setattr(openai, "KEEP_ALIVE_SECS", 0.05)

    async def never(_asked: Asked) -> str:
        raise Refusal(503, "the queue is full (1 jobs)")

    await workers(never)
    serving = await site(patience=0.5)
    url = f"{serving.url}/v1/audio/transcriptions"
    audio = encoded(noise[: RATE * 5], RATE)
    async with http.post(url, data=form(audio, stream="true")) as answer:  # a comment has opened it by then
        data = [line for line in (await answer.text()).splitlines() if line.startswith("data: ")]
    assert answer.status == 200
    assert json.loads(data[0][6:])["error"]["message"] == "the queue is full (1 jobs)"
    monkeypatch.setattr(openai, "KEEP_ALIVE_SECS", 15.0)
    async with http.post(url, data=form(audio, stream="true")) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_wishes_reach_the_worker(workers, site, http) -> None:
    """Language, prompt, task and trace context; a prompt of several lines becomes one, as headers have it."""

    async def listen(_asked: Asked) -> str:
        return "yes"

    (worker,) = await workers(listen)
    serving = await site()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    fields = form(encoded(np.zeros((800, 2), np.float32), 8000), language="de-AT", prompt="Grüße\r\nAudio-Event: end")
    url = f"{serving.url}/v1/audio/translations"
    async with http.post(url, data=fields, headers={"traceparent": trace}) as answer:
        assert answer.status == 200
    (asked,) = worker.asked
    wanted = {
        "Audio-Encoding": "pcm_s16le",
        "Audio-Sample-Rate": "8000",
        "Audio-Channels": "2",
        "Audio-Language": "de",
        "Audio-Prompt": "Grüße Audio-Event: end",
        "Audio-Task": "translate",
        "traceparent": trace,
    }
    assert {name: asked.headers.get(name) for name in wanted} == wanted
    assert "Audio-Event" not in asked.headers
    assert asked.pcm == bytes(800 * 4)  # a short WAV goes as it is


@pytest.mark.parametrize("container", ["OGG", "WAV"])
async def test_audio_beyond_the_limit_is_refused(workers, site, http, container: str) -> None:
    """Also where a small file holds it: minutes of silence are a few bytes in Ogg."""

    async def listen(_asked: Asked) -> str:
        return ""

    await workers(listen)
    serving = await site(max_audio=60.0)
    answer, body = await transcribed(http, serving, encoded(np.zeros(61 * 8000, np.float32), 8000, None, container))
    assert (answer.status, body["error"]["code"]) == (400, "audio_too_long")
    assert body["error"]["message"] == "the audio is longer than GATEWAY_MAX_AUDIO_SECS=60"
    await serving.idle()


async def test_upload_beyond_the_limit_is_refused(workers, site, http) -> None:
    """By its stated length, and where none is stated, by its bytes."""
    await workers(name_it)
    serving = await site(max_upload=100_000)
    url = f"{serving.url}/v1/audio/transcriptions"
    told = "allowed: GATEWAY_MAX_UPLOAD_BYTES=100000"
    async with http.post(url, data=form(bytes(200_000))) as answer:
        assert answer.status == 413
        assert told in (await answer.json())["error"]["message"]

    async def parts() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(20):
            yield bytes(10_000)
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with http.post(url, data=parts(), headers=headers) as answer:
        assert answer.status == 413
        assert told in (await answer.json())["error"]["message"]


BROKEN = [
    (b"", "multipart/form-data; boundary=x", "cannot be read"),
    (b"--y\r\n\r\nz", "multipart/form-data; boundary=x", "cannot be read"),
    (b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\nRIFF", "multipart/form-data; boundary=x", "read"),
    (b"x", "multipart/form-data", "cannot be read"),
    (b"--x--\r\n", "multipart/form-data; boundary=x", "has no field 'file'"),
    (b"{}", "application/json", "Content-Type='application/json'; allowed: multipart/form-data"),
]


async def test_broken_form_is_refused(workers, site, http) -> None:
    """With a sentence, and without a trace in the log."""
    await workers(name_it)
    serving = await site()
    url = f"{serving.url}/v1/audio/transcriptions"
    for body, kind, told in BROKEN:
        async with http.post(url, data=body, headers={"Content-Type": kind}) as answer:
            assert (answer.status, body) == (400, body)
            assert told in (await answer.json())["error"]["message"]


async def test_body_is_asked_for_only_where_it_is_wanted(workers, site) -> None:
    """curl sends what is long only once it is asked for, and otherwise waits for a second."""
    await workers(name_it)
    serving = await site(max_upload=100_000)
    host, _, port = serving.url.removeprefix("http://").partition(":")
    for size, wanted in (
        (50_000, b"HTTP/1.1 100 Continue\r\n"),
        (200_000, b"HTTP/1.1 413 Request Entity Too Large\r\n"),
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/listen HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(PATIENCE):
            assert await reader.readline() == wanted
        writer.close()
        await writer.wait_closed()


async def test_key_without_audio_left_is_told_when_to_come_back(workers, site, http, flac, tmp_path) -> None:
    """A recording that has begun is finished; the next one is refused, and keeps no place."""
    secret, line = keys.make("desk")
    path = tmp_path / "keys"
    path.write_text(f"{line} audio=0.5\n")
    (worker,) = await workers(name_it)
    serving = await site(keys=path)
    url = f"{serving.url}/v1/audio/transcriptions"
    headers = {"Authorization": f"Bearer {secret}"}
    async with http.post(url, data=form(flac), headers=headers) as answer:
        assert answer.status == 200
    assert {asked.headers["Audio-Tenant"] for asked in worker.asked} == {"desk"}
    async with http.post(url, data=form(flac), headers=headers) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(answer.headers["Retry-After"]) >= 1
    await serving.idle()


async def test_upload_that_breaks_off_leaves_nothing(workers, site, caplog) -> None:
    """In a form and in JSON: no memory is kept, and nothing is logged as an error."""
    await workers(name_it)
    serving = await site()
    storage = serving.recordings.storage
    host, _, port = serving.url.removeprefix("http://").partition(":")
    form_head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    for path, kind, begin in (
        ("/v1/audio/transcriptions", "multipart/form-data; boundary=x", form_head),
        ("/transcribe", "application/json", b'{"audio_data": "'),
    ):
        before = storage.memory
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 3000000\r\n\r\n"
        writer.write(head.encode() + begin + b"A" * 500_000)
        async with asyncio.timeout(PATIENCE):
            await writer.drain()
            while storage.memory == before:  # noqa: ASYNC110 - until some of it has come
                await asyncio.sleep(0.01)
            writer.close()
            await writer.wait_closed()
            while storage.memory != before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("head", "kept", "said"),
    [
        ("HTTP/1.1", True, None),
        ("HTTP/1.1\r\nConnection: close", False, "close"),
        ("HTTP/1.0", False, "close"),
        ("HTTP/1.0\r\nConnection: keep-alive", True, "keep-alive"),
    ],
)
async def test_connection_is_kept_as_the_client_asks(workers, site, head: str, kept: bool, said: str | None) -> None:
    """By a JSON answer, which the gateway writes itself; its id, its length and its body are whole."""
    await workers(name_it)
    serving = await site()
    host, _, port = serving.url.removeprefix("http://").partition(":")
    body = json.dumps({"audio_data": base64.b64encode(encoded(np.zeros(RATE, np.float32), RATE)).decode()}).encode()
    reader, writer = await asyncio.open_connection(host, int(port))
    first, more, fields = head.partition("\r\n")
    for number in range(2 if kept else 1):
        lines = f"POST /transcribe {first}\r\nHost: x\r\nx-request-id: mine-{number}\r\nContent-Length: {len(body)}"
        writer.write(f"{lines}{more}{fields}\r\n\r\n".encode() + body)
        async with asyncio.timeout(PATIENCE):
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n")
            status, *lines = answer.split("\r\n")
            found = dict(line.lower().split(": ", 1) for line in lines)
            told = json.loads(await reader.readexactly(int(found["content-length"])))
        assert status == f"{first} 200 OK"
        assert (found["x-request-id"], told["job_id"]) == (f"mine-{number}",) * 2
        assert found["content-type"] == "application/json; charset=utf-8"
        assert found.get("connection") == said
        assert told["status"] == "completed"
    if not kept:
        assert await reader.read() == b""
    writer.close()


async def test_stats_count_what_was_transcribed(workers, site, http) -> None:
    """Not what was refused."""
    await workers(name_it)
    serving = await site()
    await transcribed(http, serving, encoded(np.zeros(RATE, np.float32), RATE))
    await transcribed(http, serving, b"x")
    async with http.get(f"{serving.url}/stats") as answer:
        stats = await answer.json()
    assert (stats["total_processed"], stats["processing_time_s"]) == (1, 0.01)
    assert stats["average_latency_ms"] > 0
