"""The query of Deepgram's live endpoint: what is understood, what is ignored, and what is refused."""

from __future__ import annotations

from urllib.parse import parse_qs, urlencode

import pytest

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.gateway.dialects.deepgram_query import Listening, listening
from transcriber.gateway.problems import Problem

RAW = {"encoding": "linear16", "sample_rate": "16000"}


def read(**fields: object) -> Listening:
    return listening(parse_qs(urlencode(fields, doseq=True), keep_blank_values=True))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (RAW, AudioFormat(Encoding.S16LE, 16_000, 1)),
        ({**RAW, "channels": 2}, AudioFormat(Encoding.S16LE, 16_000, 2)),
        ({"encoding": "linear32", "sample_rate": "48000"}, AudioFormat(Encoding.F32LE, 48_000, 1)),
        ({"encoding": "mulaw", "sample_rate": "8000"}, AudioFormat(Encoding.MULAW, 8_000, 1)),
        ({"encoding": "ALAW"}, AudioFormat(Encoding.ALAW, 8_000, 1)),
        ({}, None),
    ],
)
def test_format_is_that_of_encoding_rate_and_channels(fields: dict[str, object], expected: AudioFormat | None) -> None:
    """A rate may be missing only where there is one that is usual; without encoding, a WAV head says all."""
    assert read(**fields).format == expected


def test_query_of_livekit_is_understood() -> None:
    """All fourteen of its fields at once, with booleans as Python writes them."""
    asked = read(
        **RAW, channels=1, model="nova-3", punctuate=True, smart_format=False, no_delay=True, interim_results=True,
        vad_events=True, endpointing=25, filler_words=True, profanity_filter=False, numerals=False, mip_opt_out=False,
        language="en-US", keyterm=["Havel", "Spree"], tag=["a", "b"],
    )  # fmt: skip
    hearing = asked.hearing(AudioFormat(Encoding.S16LE, 16_000, 1))
    assert (hearing.model, hearing.language, hearing.prompt) == ("nova-3", "en", "Havel, Spree")
    assert (hearing.partials, hearing.speech, hearing.endpointing_ms) == (True, True, 25)
    assert asked.speech_final


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"endpointing": "false"}, "speech_final", False),
        ({"endpointing": "true"}, "endpointing_ms", None),
        ({"utterance_end_ms": "1500"}, "utterance_end", 1.5),
        ({"utterance_end_ms": "false"}, "utterance_end", None),
        ({"language": "multi"}, "language", "auto"),
        ({"detect_language": "true"}, "language", "auto"),
        ({"keywords": ["Havel:2", "Spree"]}, "prompt", "Havel, Spree"),
        ({"redact": "false", "callback": ""}, "vad_events", False),
        ({"multichannel": "true"}, "split", True),
        ({"no_such_parameter": "x", "diarize": "true"}, "interim", False),
    ],
)
def test_parameter_has_its_effect(fields: dict[str, object], name: str, value: object) -> None:
    assert getattr(read(**RAW, **fields), name) == value


def test_speech_events_are_asked_for_utterance_ends_too() -> None:
    """A pause can only be told when windows are."""
    audio_format = AudioFormat(Encoding.S16LE, 16_000, 1)
    assert read(**RAW, utterance_end_ms=1000).hearing(audio_format).speech
    assert not read(**RAW).hearing(audio_format).speech


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"encoding": "opus"}, "encoding='opus'"),
        ({"encoding": "linear16"}, "sample_rate is missing"),
        ({"encoding": "linear16", "sample_rate": "7999"}, "sample_rate='7999'"),
        ({"encoding": "linear16", "sample_rate": "9" * 5000}, "sample_rate='9"),
        ({"encoding": "linear16", "sample_rate": "16k"}, "sample_rate='16k'"),
        ({**RAW, "channels": "9"}, "channels='9'"),
        ({**RAW, "channels": "21", "multichannel": "true"}, "channels='21'"),
        ({**RAW, "multichannel": "perhaps"}, "multichannel='perhaps'"),
        ({**RAW, "utterance_end_ms": "999"}, "utterance_end_ms='999'"),
        ({**RAW, "endpointing": "-1"}, "endpointing='-1'"),
        ({**RAW, "language": "tlh"}, "language='tlh'"),
        ({**RAW, "callback": "https://example.org"}, "callback='https://example.org'"),
        ({**RAW, "redact": "pci"}, "redact='pci'"),
    ],
)
def test_parameter_that_would_spoil_the_text_is_refused(fields: dict[str, object], named: str) -> None:
    """With its name and value, and with what is allowed."""
    with pytest.raises(Problem) as refusal:
        read(**fields)
    assert refusal.value.status == 400
    assert refusal.value.message.startswith(named)
    assert ": " in refusal.value.message
