"""Recordings in JSON: what is taken, what is refused, and the answers."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.gateway.dialects import seed
from transcriber.gateway.dialects.recording import RecordedGap, RecordedSegment, RecordingText, Wish
from transcriber.gateway.problems import Problem

TEXT = RecordingText(
    end=2.0,
    language="en",
    model="m",
    segments=(RecordedSegment(text="hello there", start=0, end=2, confidence=0.5),),
)


def test_audio_is_taken_in_base64_and_as_a_list_of_bytes() -> None:
    """Both give the same bytes."""
    data = bytes(range(256))
    coded = base64.b64encode(data).decode()
    assert seed.audio({"audio_data": coded}) == data
    assert seed.buffer({"audio_buffer": list(data)}) == data
    assert seed.buffer({"audio_buffer": coded}) == data


@pytest.mark.parametrize(
    ("read", "body", "told"),
    [
        (seed.audio, {}, "audio_data='NoneType'; allowed: a string of base64"),
        (seed.audio, {"audio_data": 7}, "audio_data='int'"),
        (seed.audio, {"audio_data": "abc"}, "audio_data='abc'; allowed: base64"),
        (seed.audio, {"audio_data": "ab c"}, "audio_data='ab c'; allowed: base64"),
        (seed.buffer, {"audio_buffer": [256]}, "whole numbers from 0 to 255"),
        (seed.buffer, {"audio_buffer": [-1]}, "whole numbers from 0 to 255"),
        (seed.buffer, {"audio_buffer": [1.5]}, "whole numbers from 0 to 255"),
        (seed.buffer, {"audio_buffer": [[1]]}, "whole numbers from 0 to 255"),
        (seed.buffer, {}, "audio_buffer='NoneType'"),
        (seed.wish, {"language": "klingon"}, "language='klingon'; allowed"),
        (seed.wish, {"language": 5}, "language='5'"),
        (seed.raw, {"format": "pcm", "sample_rate": "16k"}, "sample_rate='16k'; allowed: 8000 to 192000"),
        (seed.raw, {"format": "pcm", "channels": True}, "channels='True'; allowed: 1 to 8"),
    ],
)
def test_bad_body_is_refused_by_field_and_value(read: Any, body: dict[str, Any], told: str) -> None:
    """Each mistake is a 400."""
    with pytest.raises(Problem) as caught:
        read(body)
    assert caught.value.status == 400
    assert told in caught.value.message
    assert seed.in_seed_shape(caught.value) == {
        "status": "failed",
        "error": caught.value.message,
        "code": "invalid_value",
    }


@pytest.mark.parametrize(
    ("body", "default", "raw"),
    [
        ({"format": "wav"}, False, None),
        ({}, False, None),
        ({}, True, AudioFormat(Encoding.S16LE, 16_000, 1)),
        ({"format": "flac"}, True, None),
        ({"format": "PCM", "sample_rate": 8000, "channels": 2}, False, AudioFormat(Encoding.S16LE, 8000, 2)),
        ({"format": "pcm_mulaw"}, False, AudioFormat(Encoding.MULAW, 16_000, 1)),
    ],
)
def test_format_is_needed_only_for_audio_without_a_head(
    body: dict[str, Any], default: bool, raw: AudioFormat | None
) -> None:
    """A file says itself what it is, so its name is not believed."""
    assert seed.raw(body, default=default) == raw


def test_wish_is_language_and_model() -> None:
    """An empty language is none."""
    assert seed.wish({"language": "DE"}, "m") == Wish(model="m", language="de")
    assert seed.wish({"language": ""}) == Wish()


def test_answers_hold_text_time_and_gaps() -> None:
    """Gaps only where there are any."""
    assert seed.transcribed("j", TEXT, 0.0125) == {
        "job_id": "j",
        "status": "completed",
        "transcription": "hello there",
        "processing_time_ms": 12.5,
    }
    lost = RecordingText(end=2.0, language="", model="", segments=(), gaps=(RecordedGap(0, 2, "timeout"),))
    assert seed.transcribed("j", lost, 1)["gaps"] == [{"start": 0, "end": 2, "reason": "timeout"}]
    batch = seed.decoded({"description": {"id": 4}}, TEXT, 0.5)
    assert (batch["transcription"], batch["description"], batch["processing_time_ms"]) == (
        "hello there",
        {"id": 4},
        500,
    )


def test_stats_are_means_since_the_start() -> None:
    """Nothing is divided by nought."""
    assert seed.stats(4, 1.5, 2.0, 8.0) == {
        "total_processed": 4,
        "processing_time_s": 1.5,
        "average_latency_ms": 500.0,
        "throughput": 0.5,
    }
    assert seed.stats(0, 0.0, 0.0, 0.0)["average_latency_ms"] == 0.0
