"""Mistakes of producers: each gets its event, and the next good chunk is transcribed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import ctranslate2
import numpy as np
import pytest
import soundfile
from harness import QUICK, Client, Daemon, NatsServer, Speech, check_tiles, converse, s16
from otlp import Collector

from transcriber.models import store

LIMIT = 100_000  # bytes; the utterance below has 70,000
RATE: dict[str, str | int] = {"audio_sample_rate": 16_000}


class Bad(NamedTuple):
    """One message that must be rejected, and what the event must say."""

    reason: str
    says: tuple[str, ...]
    payload: bytes = b"\0\0"
    headers: dict[str, Any] = {}  # noqa: RUF012 - a default that nobody changes


def header(reason: str, name: str, value: str, *allowed: str) -> Bad:
    """A header with a bad value: the event names it, shows the value and says what is allowed."""
    return Bad(reason, (name, repr(value)[1:-1][:100], *allowed), headers={name.lower().replace("-", "_"): value})


BAD = {
    "odd byte count": Bad("partial_frame", ("3 bytes", "2-byte"), b"\0\0\0"),
    "half a stereo frame": Bad("partial_frame", ("6 bytes", "4-byte", "2 channels"), b"\0" * 6, {"audio_channels": 2}),
    "empty without event": Bad("empty", ("Audio-Event",), b""),
    "oversized": Bad("too_large", (f"{LIMIT + 2} bytes", f"AUDIO_MAX_CHUNK_BYTES={LIMIT}"), bytes(LIMIT + 2)),
    "unknown encoding": header("encoding", "Audio-Encoding", "mp3", "pcm_s16le", "pcm_alaw"),
    "empty encoding": header("encoding", "Audio-Encoding", "", "pcm_s16le"),
    "encoding in capitals": header("encoding", "Audio-Encoding", "PCM_S16LE", "pcm_s16le"),
    "rate not a number": header("rate", "Audio-Sample-Rate", "fast", "8000 to 192000"),
    "rate too low": header("rate", "Audio-Sample-Rate", "7999", "8000 to 192000"),
    "rate too high": header("rate", "Audio-Sample-Rate", "192001", "8000 to 192000"),
    "rate zero": header("rate", "Audio-Sample-Rate", "0", "8000 to 192000"),
    "rate negative": header("rate", "Audio-Sample-Rate", "-16000", "8000 to 192000"),
    "rate with a fraction": header("rate", "Audio-Sample-Rate", "16000.0", "8000 to 192000"),
    "rate in other digits": header("rate", "Audio-Sample-Rate", "１６０００", "8000 to 192000"),  # noqa: RUF001
    "rate huge": header("rate", "Audio-Sample-Rate", "9" * 10_000, "8000 to 192000"),
    "no channels": header("channels", "Audio-Channels", "0", "1 to 8"),
    "nine channels": header("channels", "Audio-Channels", "9", "1 to 8"),
    "channels not a number": header("channels", "Audio-Channels", "stereo", "1 to 8"),
    "offset negative": header("offset", "Audio-Offset", "-1", "whole number"),
    "offset not a number": header("offset", "Audio-Offset", "1e3", "whole number"),
    "offset huge": header("offset", "Audio-Offset", "9" * 16, "whole number"),
    "offset in other digits": header("offset", "Audio-Offset", "٣", "whole number"),
    "session too long": header("session", "Audio-Session", "s" * 129, "128 printable ASCII"),
    "session with control characters": header("session", "Audio-Session", "a\x00\x1bb", "printable ASCII"),
    "session not ASCII": header("session", "Audio-Session", "sitzung-ä", "printable ASCII"),
    "session empty": header("session", "Audio-Session", "", "printable ASCII"),
    "unknown event": header("event", "Audio-Event", "stop", "flush, end, keepalive"),
}
FILES = {
    "WebM": b"\x1aE\xdf\xa3\x9fB\x86\x81\1B\xf7\x81\1B\xf2\x81\4B\xf3\x81\x08B\x82\x84webm",
    "MP4": b"\0\0\0\x1cftypM4A \0\0\2\0M4A mp42isom",
    "Ogg": b"OggS\0\2" + bytes(40),
    "JSON": b'{"audio": "AAAAAAAAAAAAAAAA"}  ',
}
GOOD: dict[str, dict[str, Any]] = {
    "junk that nobody asked for": {f"x_{i}": "\x7f\u2028 junk" for i in range(100)},
    "bad hints": {"audio_language": "klingon", "audio_tenant": "mandänt", "traceparent": "00-zz-01"},
    "empty hints": {"audio_language": "", "audio_tenant": "", "traceparent": ""},
    "all-zero trace": {"traceparent": f"00-{'0' * 32}-{'0' * 16}-01"},
}


@pytest.fixture
def utterance(heldout: Speech) -> Speech:
    return heldout.cut(4, 5)


async def test_bad_chunk_is_rejected_once_and_the_next_is_transcribed(
    nats_server: NatsServer, client: Client, utterance: Speech
) -> None:
    """One event says what is wrong with a chunk and what is allowed. Nothing else changes."""
    pcm = s16(utterance.samples)
    async with Daemon(nats_server.url, AUDIO_MAX_CHUNK_BYTES=str(LIMIT), **QUICK) as daemon:
        for number, bad in enumerate(BAD.values()):
            await client.send(bad.payload, subject=f"audio.bad-{number}", **RATE | bad.headers)
            await client.send(pcm, subject=f"audio.bad-{number}", audio_event="end", **RATE)
        for number, headers in enumerate(GOOD.values()):
            await client.send(pcm, subject=f"audio.good-{number}", audio_event="end", **RATE | headers)
        await client.until_count(len(BAD) + len(GOOD), "ended")
        assert await daemon.stop() == 0
        assert daemon.stderr == ""

    for number, (name, bad) in enumerate(BAD.items()):
        stream = f"bad-{number}"
        (rejected,) = client.of("rejected", stream=stream)
        assert rejected["reason"] == bad.reason, name
        assert all(word in rejected["detail"] for word in bad.says), (name, rejected["detail"])
        check_good(client, stream, utterance)
    for number in range(len(GOOD)):
        assert not client.of("rejected", stream=f"good-{number}")
        check_good(client, f"good-{number}", utterance)


async def test_files_make_no_text_and_misspelt_headers_are_logged(
    nats_server: NatsServer, client: Client, utterance: Speech
) -> None:
    """The bytes of a file become no text. Header names count in any case, and the log names unknown ones."""
    pcm = s16(utterance.samples)
    async with Daemon(nats_server.url, **QUICK) as daemon:
        for name, data in FILES.items():
            await client.send(data, subject=f"audio.{name}", **RATE)
            await client.send(pcm, subject=f"audio.{name}", **RATE)  # the rest of the file, for all that is known
            await client.send(pcm, subject=f"audio.{name}", audio_event="end", **RATE)
            await client.send(pcm, subject=f"audio.{name}", audio_event="end", **RATE)
        for part in (wav_of(utterance)[:44], pcm[:32_000], pcm[32_000:]):
            await client.send(part, subject="audio.wav")
        await client.send(subject="audio.wav", audio_event="end")
        for part in (pcm[:32_000], pcm[32_000:]):
            headers = {"audio-sample-rate": "16000", "Audio-Sesion": "run"}
            await client.nats.publish("audio.odd", part, headers=headers)
        await client.send(subject="audio.odd", audio_event="end")
        await client.until_count(len(FILES) + 2, "ended")
        assert await daemon.stop() == 0
    for name in FILES:
        rejected = client.of("rejected", stream=name)
        assert [body["reason"] for body in rejected] == ["container"] * 3
        assert all(name in body["detail"] for body in rejected)
        check_good(client, name, utterance)
    check_good(client, "wav", utterance)
    check_good(client, "odd", utterance)
    told = [(r["header"], r["meant"]) for r in daemon.records if r["message"] == "unknown header ignored"]
    assert told == [("Audio-Sesion", "Audio-Session")]


def wav_of(speech: Speech) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, speech.samples, speech.rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def exporting(nats_server: NatsServer, collector: Collector) -> Daemon:
    """A daemon whose metrics go to this collector when it stops."""
    return Daemon(nats_server.url, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, **QUICK)


def check_good(client: Client, stream: str, speech: Speech) -> None:
    """The stream's one session holds this speech and nothing else."""
    (ended,) = client.of("ended", stream=stream)
    check_tiles(client.heard, ended)
    assert round(ended["received"] * 16000) == len(speech.samples)
    assert ended["gap"] == {}
    assert client.text(stream) == speech.words


async def test_floats_beyond_reason_are_repaired_and_counted(
    nats_server: NatsServer, client: Client, utterance: Speech
) -> None:
    """NaN, infinities and 1e38 reject no chunk. They are made finite, and a metric counts them."""
    samples = utterance.samples.copy()
    samples[:5] = [np.nan, np.inf, -np.inf, 1e38, -1.5]
    async with Collector() as collector, exporting(nats_server, collector) as daemon:
        await client.send(samples.astype("<f4").tobytes(), audio_encoding="pcm_f32le", audio_event="end", **RATE)
        await client.until_type("ended")
        assert await daemon.stop() == 0
        await collector.until(lambda c: c.value("transcriber.samples.repaired", stream="s1") == 5)
    check_good(client, "s1", utterance)
    assert not client.of("rejected")


async def test_a_chunk_may_be_as_large_as_the_server_takes(
    nats_server: NatsServer, client: Client, utterance: Speech
) -> None:
    """Payloads of max_payload, and of one byte less, come through. One byte more, and the server hangs up."""
    largest = client.nats.max_payload
    assert largest == 1_048_576  # and so is AUDIO_MAX_CHUNK_BYTES
    async with Daemon(nats_server.url, AUDIO_ENCODING="pcm_mulaw", AUDIO_SAMPLE_RATE="192000", **QUICK) as daemon:
        for number, size in enumerate((largest - 1, largest)):
            await client.send(b"\xff" * size, subject=f"audio.large-{number}")
            await client.send(subject=f"audio.large-{number}", audio_event="end")
            ended = await client.until_type("ended", stream=f"large-{number}")
            assert round(ended["received"] * 16000) == round(size / 12)
        said = await converse(nats_server.port, b"PUB audio.large-2 %d\r\n" % (largest + 1))
        assert b"Maximum Payload Violation" in said[0]
        assert said[-1] == b""
        await client.send(s16(utterance.samples), audio_encoding="pcm_s16le", audio_event="end", **RATE)
        await client.until_type("ended", stream="s1")
        assert await daemon.stop() == 0
    check_good(client, "s1", utterance)
    assert not client.of("rejected")


async def test_subject_without_a_stream_is_logged_and_not_answered(
    nats_server: NatsServer, client: Client, utterance: Speech
) -> None:
    """Wildcards, unicode, 65 characters and bytes that are no UTF-8 each get a log line and a count, and no message."""
    names = ["*", ">", "a*b", "straße", "x" * 65, "a/b", "a:b"]
    async with Collector() as collector, exporting(nats_server, collector) as daemon:
        for name in names:
            await client.send(b"\0\0", subject=f"audio.{name}")
        await converse(nats_server.port, b"PUB audio.\xff\xfe 2\r\n\0\0\r\n", b"PUB audio.a\0b 2\r\n\0\0\r\n")
        # A dot makes another subject, an empty token none, and what follows a space is a reply subject.
        await client.send(b"\0\0", subject="audio.a.b")
        await converse(nats_server.port, b"PUB audio. 2\r\n\0\0\r\n", b"PUB audio b 2\r\n\0\0\r\n")
        await client.send(s16(utterance.samples), audio_event="end", **RATE)
        await client.until_type("ended")
        record = await daemon.logged("chunk rejected")
        assert await daemon.stop() == 0
        await collector.until(lambda c: c.value("transcriber.chunks.dropped", stream="invalid", reason="stream") > 0)
        dropped = collector.value("transcriber.chunks.dropped", stream="invalid", reason="stream")
    assert record["stream"] is None
    assert "[A-Za-z0-9_-]{1,64}" in record["detail"]
    assert dropped == len(names) + 2
    assert {body["stream"] for body in client.heard} == {"s1"}
    check_good(client, "s1", utterance)


async def test_malformed_header_block_is_rejected(nats_server: NatsServer, client: Client, utterance: Speech) -> None:
    """Bytes that nobody can read as headers reject that message. nats-py alone would never hear another one."""
    blocks = [b"\xff\xfe\x00\x01", b"NATS/1.0", b"NATS/1.0 \xff\xff\xff\r\n\r\n", b"NATS/1.0 503 \xff\xff\r\n\r\n"]
    twice = b"NATS/1.0\r\nAudio-Channels: 9\r\n\xe4\xf6: x\r\nno colon\r\n: y\r\nAudio-Channels: 1\r\n\r\n"
    async with Daemon(nats_server.url, **QUICK) as daemon:
        for block in blocks:
            command = b"HPUB audio.s1 %d %d\r\n%b\0\0\r\n" % (len(block), len(block) + 2, block)
            assert await converse(nats_server.port, command) == [b"PONG\r\n"]
        await converse(nats_server.port, b"HPUB audio.s2 %d %d\r\n%b\0\0\r\n" % (len(twice), len(twice) + 2, twice))
        await client.send(s16(utterance.samples), audio_event="end", **RATE)
        await client.until_type("ended", stream="s1")
        await client.until_type("started", stream="s2")
        assert await daemon.stop() == 0
        assert "encountered error" not in str(daemon.records)
    rejections = client.of("rejected")
    assert [r["reason"] for r in rejections] == ["headers"] * len(blocks)
    assert all("NATS/1.0" in r["detail"] for r in rejections)
    check_good(client, "s1", utterance)


def model_files(folder: Path) -> dict[str, tuple[Path, str, str]]:
    """By name: a model that must not be loaded, the sha256 that is asked for, and what the log must say."""
    good = store.bundled_model_path().read_bytes()
    noise = np.random.default_rng(1).bytes(1_000_000)
    files = {"truncated": good[:-1000], "headless": good[1000:], "noise": noise, "empty": b"", "header": good[:40]}
    for name, data in files.items():
        (folder / f"{name}.bin").write_bytes(data)
    here = {name: (folder / f"{name}.bin", "", "") for name in files}
    return here | {
        "missing": (folder / "missing.bin", "", "no such file"),
        "folder": (folder, "", "directory"),
        "wrong sha256": (store.bundled_model_path(), "0" * 64, "0" * 64),
    }


@pytest.mark.parametrize(
    "name", ["truncated", "headless", "noise", "empty", "header", "missing", "folder", "wrong sha256"]
)
async def test_invalid_model_file_ends_the_start_with_exit_code_3(tmp_path: Path, name: str) -> None:
    """The end comes within 10 s, in one sentence that names the file, before native code sees it."""
    path, digest, says = model_files(tmp_path)[name]
    environ = {"WHISPER_MODEL_PATH": str(path), "WHISPER_MODEL_SHA256": digest}
    async with Daemon("nats://127.0.0.1:1", wait=False, **environ) as daemon:
        assert await daemon.ended(10) == 3
    last = daemon.records[-1]
    assert last["level"] == "critical"
    assert last["message"].startswith(f"cannot start: model {path}: ")
    assert says in last["message"]
    assert daemon.stderr == ""


@pytest.mark.parametrize(
    ("setting", "value", "code", "says"),
    [
        ("WHISPER_ENGINE", "whisper.cpp", 3, "is a folder, but WHISPER_ENGINE=whisper.cpp needs a file"),
        ("WHISPER_COMPUTE_TYPE", "float16", 3, "cannot be loaded by CTranslate2: "),
        ("WHISPER_DEVICE", "cuda", 2, "WHISPER_DEVICE='cuda' is not allowed: cpu or auto here"),
    ],
)
async def test_engine_that_cannot_have_its_model_ends_the_start(
    bundled_folder: Path, setting: str, value: str, code: int, says: str
) -> None:
    """Each in one sentence, with the exit code of a missing model or of a wrong setting."""
    if setting == "WHISPER_DEVICE" and ctranslate2.get_cuda_device_count():
        pytest.skip("there is a GPU here")
    environ = {"WHISPER_MODEL_PATH": str(bundled_folder), setting: value}
    async with Daemon("nats://127.0.0.1:1", wait=False, **environ) as daemon:
        assert await daemon.ended(20) == code
    assert says in daemon.stderr + "".join(record["message"] for record in daemon.records)
    assert "Traceback" not in daemon.stderr
