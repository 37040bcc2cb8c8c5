"""Streamed speech through the daemon, compared with the model on each utterance, in four formats."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jiwer
import numpy as np
import pytest
import soxr
from harness import Client, Daemon, NatsServer, Speech, check_account, s16

from transcriber.audio import pcm
from transcriber.audio.segmenter import POST_ROLL, PRE_ROLL
from transcriber.audio.vad import FRAME
from transcriber.domain.chunks import Encoding
from transcriber.models import store
from transcriber.worker.engine import WhisperOptions
from transcriber.worker.engines.whispercpp import WhisperCppEngine

Samples = np.ndarray[Any, np.dtype[np.float32]]


def mulaw(samples: Samples) -> bytes:
    """G.711 mu-law by nearest value, as a telephone sends it."""
    values = pcm.decode(bytes(range(256)), pcm.AudioFormat(Encoding.MULAW, 8000, 1))[0]
    order = np.argsort(values)
    middles = (values[order][1:] + values[order][:-1]) / 2
    return bytes(order[np.searchsorted(middles, samples)].astype(np.uint8).tobytes())


def at(rate: int, samples: Samples) -> Samples:
    return np.asarray(soxr.resample(samples, 16_000, rate, "HQ"), np.float32)


@dataclass(frozen=True)
class Format:
    """How a producer sends: headers, bytes a frame, and how 16 kHz samples become its payload."""

    stream: str
    rate: int
    frame_bytes: int
    headers: dict[str, str | int]
    encode: Callable[[Samples], bytes]


FORMATS = (
    Format("s16-48k", 48_000, 2, {}, lambda x: s16(at(48_000, x))),
    Format(
        "f32-stereo-44k1",
        44_100,
        8,
        {"audio_encoding": "pcm_f32le", "audio_sample_rate": 44_100, "audio_channels": 2},
        lambda x: np.repeat(at(44_100, x).astype("<f4"), 2).tobytes(),
    ),
    Format("s16-16k", 16_000, 2, {"audio_sample_rate": 16_000}, s16),
    Format(
        "mulaw-8k", 8000, 1, {"audio_encoding": "pcm_mulaw", "audio_sample_rate": 8000}, lambda x: mulaw(at(8000, x))
    ),
)


async def publish(client: Client, how: Format, speech: Speech, session: str) -> None:
    """Send the whole recording as fast as it goes, in chunks of random size up to half a second."""
    random = np.random.default_rng(how.rate)
    payload, position = how.encode(speech.samples), 0
    while position < len(payload):
        size = int(random.integers(1, how.rate // 2)) * how.frame_bytes
        headers = {"audio_session": session, "audio_offset": position // how.frame_bytes, **how.headers}
        await client.send(payload[position : position + size], subject=f"audio.{how.stream}", **headers)
        position += size
        await asyncio.sleep(0)
    await client.send(subject=f"audio.{how.stream}", audio_session=session, audio_event="end", **how.headers)


def word_error_rate(said: str, heard: str) -> float:
    return float(jiwer.wer(said, heard))


def inside(speech: Speech, finals: list[dict[str, Any]]) -> tuple[float, float]:
    """Seconds of known speech inside windows, and in all."""
    covered = total = 0.0
    for row in speech.rows:
        total += row["end"] - row["start"]
        covered += sum(max(0.0, min(f["end"], row["end"]) - max(f["start"], row["start"])) for f in finals)
    return covered, total


@pytest.mark.slow
@pytest.mark.parametrize("recordings", [1, 2])
async def test_streaming_costs_no_words(
    nats_server: NatsServer, client: Client, heldout: Speech, more_heldout: Speech, recordings: int
) -> None:
    """The joined finals have at most 1 point more word errors than the model alone. Windows hold 99 % of the speech."""
    engine = WhisperCppEngine(WhisperOptions(path=store.bundled_model_path(), threads=1))
    sets = dict([("heldout", heldout), ("heldout2", more_heldout)][:recordings])
    said = " ".join(speech.words for speech in sets.values())
    assert len(said.split()) >= 750 * recordings

    def directly(prepare: Callable[[Samples], Samples]) -> float:
        texts: list[str] = []
        for speech in sets.values():
            samples = prepare(speech.samples)
            for row in speech.rows:
                first = int(row["start"] * 16_000) - PRE_ROLL * FRAME  # with the silence that a window has around
                cut = samples[first : int(row["end"] * 16_000) + POST_ROLL * FRAME]
                texts += [s.text for s in engine.transcribe(cut, None).segments]
        return word_error_rate(said, " ".join(texts))

    def both() -> tuple[float, float]:
        resampled = directly(lambda x: np.asarray(soxr.resample(at(8000, x), 8000, 16_000, "HQ"), np.float32))
        return directly(lambda x: x), resampled

    async with Daemon(nats_server.url, TRANSCRIPTION_MAX_LATENCY_SECS="900", WHISPER_THREADS="1") as daemon:
        meanwhile = asyncio.create_task(asyncio.to_thread(both))  # on the other core
        for session, speech in sets.items():
            await asyncio.gather(*(publish(client, how, speech, session) for how in FORMATS))
            for how in FORMATS:
                check_account(await client.until_type("ended", patience=240, stream=how.stream, session=session))
        assert await daemon.stop() == 0

    wideband, telephone = await meanwhile
    for how in FORMATS:
        finals = sorted(client.of("final", stream=how.stream), key=lambda f: (f["session"], f["sequence"]))
        heard = word_error_rate(said, " ".join(f["text"] for f in finals if f["text"]))
        alone = telephone if how.rate == 8000 else wideband
        parts = [inside(sets[s], [f for f in finals if f["session"] == s]) for s in sets]
        share = sum(covered for covered, _ in parts) / sum(total for _, total in parts)
        print(f"{how.stream:16} WER {heard:.4f}, model alone {alone:.4f}; speech inside windows {share:.4%}")
        assert heard <= alone + 0.01, how.stream
        assert share >= 0.99, how.stream


@pytest.mark.parametrize("how", FORMATS, ids=lambda how: how.stream)
async def test_no_word_is_cut_where_the_speaker_paused(
    client: Client, daemon: Daemon, words_apart: Speech, how: Format
) -> None:
    """With half a second between words, every window border lies in a pause."""
    await publish(client, how, words_apart, "apart")
    await client.until_type("ended", session="apart")
    borders = [f[key] for f in client.of("final") for key in ("start", "end")]
    cut = [(row["words"], b) for row in words_apart.rows for b in borders if row["start"] < b < row["end"]]
    assert len(borders) >= 2
    assert cut == []
    covered, total = inside(words_apart, client.of("final"))
    assert covered / total >= 0.99
    assert await daemon.stop() == 0
