"""The configuration of a Realtime session: read in two shapes, and told as it is in effect."""

from __future__ import annotations

from typing import Any

import pytest

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.gateway.dialects.realtime_session import Invalid, SessionOptions

LIVEKIT = {
    "type": "transcription",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "transcription": {"model": "gpt-4o-mini-transcribe", "language": "en-US", "prompt": "names"},
            "turn_detection": {
                "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 600, "silence_duration_ms": 350
            },
            "noise_reduction": {"type": "near_field"},
        }
    },
}  # fmt: skip


def nested(**audio_input: Any) -> dict[str, Any]:
    return {"type": "transcription", "audio": {"input": audio_input}}


def test_configuration_is_told_as_it_is_in_effect() -> None:
    """Prefix and least pause are ours, noise is not reduced, and there is no threshold that one could set."""
    options = SessionOptions().updated(LIVEKIT)
    hearing = options.hearing
    assert (hearing.model, hearing.language, hearing.prompt) == ("gpt-4o-mini-transcribe", "en", "names")
    assert (hearing.speech, hearing.endpointing_ms) == (True, 480)
    assert options.nested("s1") == {
        "id": "s1",
        "type": "transcription",
        "object": "realtime.transcription_session",
        "include": None,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "noise_reduction": None,
                "transcription": {"model": "gpt-4o-mini-transcribe", "language": "en", "prompt": "names"},
                "turn_detection": {"type": "server_vad", "prefix_padding_ms": 300, "silence_duration_ms": 480},
            }
        },
    }


def test_configuration_of_the_beta_is_flat() -> None:
    """The same choices under other names, and told under those."""
    flat = {
        "input_audio_format": "g711_ulaw",
        "input_audio_transcription": {"model": "whisper-1"},
        "turn_detection": None,
    }
    options = SessionOptions().updated(flat)
    assert options.format == AudioFormat(Encoding.MULAW, 8_000, 1)
    told = options.flat("s1")
    assert {name: told[name] for name in flat} == flat


@pytest.mark.parametrize(
    ("audio_format", "expected"),
    [
        ({"type": "audio/pcm"}, AudioFormat(Encoding.S16LE, 24_000, 1)),
        ({"type": "audio/pcm", "rate": 16_000}, AudioFormat(Encoding.S16LE, 16_000, 1)),
        ({"type": "audio/pcmu"}, AudioFormat(Encoding.MULAW, 8_000, 1)),
        ({"type": "audio/pcma", "rate": 24_000}, AudioFormat(Encoding.ALAW, 8_000, 1)),
    ],
)
def test_format_has_the_rate_of_its_encoding(audio_format: dict[str, Any], expected: AudioFormat) -> None:
    """PCM says its own; G.711 has one."""
    assert SessionOptions().updated(nested(format=audio_format)).format == expected


def test_update_changes_what_it_names() -> None:
    """The rest stays; null clears."""
    options = SessionOptions(model="m", language="de").updated(
        nested(transcription={"prompt": "p"}, turn_detection=None)
    )
    assert (options.model, options.language, options.prompt, options.vad) == ("m", "de", "p", False)
    assert options.hearing.endpointing_ms is None
    cleared = options.updated(nested(transcription={"language": None}, turn_detection={"type": "semantic_vad"}))
    assert (cleared.language, cleared.prompt, cleared.vad) == (None, "p", True)
    assert options.updated({}) == options.updated({"type": "transcription", "audio": None}) == options


@pytest.mark.parametrize(
    ("given", "expected"), [([], None), (["en"], "en"), (["en", "de"], "auto")], ids=["none", "one", "several"]
)
def test_languages_are_one_or_left_to_the_model(given: list[str], expected: str | None) -> None:
    assert SessionOptions(language="fr").updated(nested(transcription={"languages": given})).language == expected


def test_keywords_are_a_prompt() -> None:
    options = SessionOptions().updated(nested(transcription={"keywords": ["Havel", "Spree"]}))
    assert options.prompt == "Havel, Spree"


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"type": "realtime"}, "session.type"),
        ({"audio": 7}, "session.audio"),
        ({"audio": {"input": []}}, "session.audio.input"),
        (nested(format={"type": "audio/opus"}), "session.audio.input.format"),
        (nested(format={"type": "audio/pcm", "rate": 7}), "session.audio.input.format.rate"),
        (nested(transcription={"model": 7}), "session.audio.input.transcription.model"),
        (nested(transcription={"language": "tlh"}), "session.audio.input.transcription.language"),
        (nested(turn_detection={"type": "x"}), "session.audio.input.turn_detection"),
        (
            nested(turn_detection={"type": "server_vad", "silence_duration_ms": -1}),
            "session.audio.input.turn_detection.silence_duration_ms",
        ),
        ({"input_audio_format": "opus"}, "session.input_audio_format"),
        ({"turn_detection": "server_vad"}, "session.turn_detection"),
    ],
)
def test_field_that_is_not_allowed_is_named(session: dict[str, Any], param: str) -> None:
    """By its whole path, in the shape that was sent."""
    with pytest.raises(Invalid) as error:
        SessionOptions().updated(session)
    assert error.value.param == param
    assert param.removesuffix(".turn_detection") in error.value.message
