"""Deepgram's API for recordings, `POST /v1/listen`: what a query asks for, and the answer. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transcriber.gateway.dialects.deepgram_query import ENCODINGS, listening
from transcriber.gateway.dialects.recording import RecordingText, Wish, gap_fields
from transcriber.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transcriber.domain.chunks import AudioFormat

# What a transcript would have more of. Clients get it without, and are told.
_NOT_DONE = (
    "custom_intent",
    "custom_topic",
    "detect_entities",
    "diarize",
    "dictation",
    "intents",
    "measurements",
    "paragraphs",
    "profanity_filter",
    "replace",
    "search",
    "sentiment",
    "summarize",
    "topics",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a query asks for. `raw`: the format of audio without a head; `not_done`: parameters that change nothing."""

    wish: Wish
    raw: AudioFormat | None = None
    utterances: bool = False
    tags: tuple[str, ...] = ()
    not_done: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What an answer says of its request. `created`: a time as in RFC 3339."""

    request_id: str
    sha256: str
    created: str


def options(query: Mapping[str, list[str]]) -> Options:
    """Read a query, as for live speech. Raises `Problem` 400 for what would spoil the text."""
    encoding = query.get("encoding", [""])[-1].lower()
    if encoding not in ENCODINGS:  # a file says in its head how it is encoded
        query = {name: values for name, values in query.items() if name != "encoding"}
    asked = listening(query)
    return Options(
        wish=Wish(model=asked.model or "", language=asked.language, prompt=asked.prompt, each_channel=asked.split),
        raw=asked.format,
        utterances=_asked(query, "utterances"),
        tags=tuple(query.get("tag", ())),
        not_done=tuple(name for name in _NOT_DONE if _asked(query, name)),
    )


def refused_url() -> Problem:
    """The problem of a request that names an address in place of audio."""
    message = "audio is not fetched from a url; send it in the body, with its own Content-Type"
    return Problem(400, message, code="INVALID_AUDIO_SOURCE", param="url")


def answer(options: Options, about: About, channels: Sequence[RecordingText]) -> dict[str, Any]:
    """The answer, with a text for each channel, or one for their mix."""
    models = [*dict.fromkeys(text.model for text in channels if text.model)]
    results: dict[str, Any] = {"channels": [_channel(text) for text in channels]}
    if options.utterances:
        results["utterances"] = _utterances(channels)
    return {
        "metadata": {
            "transaction_key": "deprecated",
            "request_id": about.request_id,
            "sha256": about.sha256,
            "created": about.created,
            "duration": max((text.duration for text in channels), default=0.0),
            "channels": len(channels),
            "models": models,
            "model_info": {name: {"name": name, "version": "", "arch": "whisper"} for name in models},
            **({"tags": list(options.tags)} if options.tags else {}),
            **({"warnings": [_warning(name) for name in options.not_done]} if options.not_done else {}),
            **_gaps(channels),
        },
        "results": results,
    }


def _channel(text: RecordingText) -> dict[str, Any]:
    words = _words(text)
    return {
        "alternatives": [{"transcript": text.text, "confidence": _confidence(words, text), "words": words}],
        "detected_language": text.language or None,
    }


def _words(text: RecordingText) -> list[dict[str, Any]]:
    return [
        {
            "word": word.text,
            "start": word.start,
            "end": word.end,
            "confidence": word.confidence,
            "punctuated_word": word.text,
        }
        for word in text.words
    ]


def _confidence(words: Sequence[Mapping[str, Any]], text: RecordingText) -> float:
    """The mean of the words' confidences; of the segments', where words are not told."""
    each = [float(word["confidence"]) for word in words] or [segment.confidence for segment in text.segments]
    return sum(each) / len(each) if each else 0.0


def _utterances(channels: Sequence[RecordingText]) -> list[dict[str, Any]]:
    """Every segment of every channel, in time's order."""
    found = []
    for channel, text in enumerate(channels):
        for number, segment in enumerate(text.segments):
            part = RecordingText(end=segment.end, language="", model="", segments=(segment,))
            found.append(
                {
                    "start": segment.start,
                    "end": segment.end,
                    "confidence": segment.confidence,
                    "channel": channel,
                    "transcript": segment.text,
                    "words": _words(part),
                    "id": f"{channel}-{number}",
                }
            )
    return sorted(found, key=lambda utterance: utterance["start"])


def _gaps(channels: Sequence[RecordingText]) -> dict[str, Any]:
    gaps = [gap | {"channel": channel} for channel, text in enumerate(channels) for gap in gap_fields(text.gaps)]
    return {"gaps": gaps} if gaps else {}


def _warning(name: str) -> dict[str, str]:
    return {"parameter": name, "type": "unsupported_parameter", "message": f"{name} is not available and was ignored"}


def _asked(query: Mapping[str, Sequence[str]], name: str) -> bool:
    return (query.get(name) or [""])[-1].strip().lower() not in {"", "false", "0", "no"}
