"""A recording's text in the forms of OpenAI's API: JSON, text, subtitles, and events of a stream. Pure."""

from __future__ import annotations

import json
import math
import zlib
from typing import TYPE_CHECKING, Any

from transcriber.domain import languages
from transcriber.domain.cues import VTT_HEAD, srt_cue, vtt_cue
from transcriber.gateway.dialects.openai_rest import Format, Options
from transcriber.gateway.dialects.recording import gap_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transcriber.gateway.dialects.recording import RecordedSegment, RecordedWord, RecordingText

KEEP_ALIVE = b": keep-alive\n\n"  # a comment, which clients skip
END = b"data: [DONE]\n\n"
_SEEK_PER_SECOND = 100  # Whisper counts frames of 10 ms
_LEAST_CONFIDENCE = 1e-10  # its logarithm is finite; Whisper's own texts never come near


def answer(options: Options, text: RecordingText) -> tuple[str, str]:
    """Return the content type and the body of the answer."""
    match options.format:
        case Format.TEXT:
            return "text/plain", f"{text.text}\n"
        case Format.SRT:
            cues = (srt_cue(i, s.start, s.end, s.text) for i, s in enumerate(_spoken(text), 1))
            return "text/plain", "".join(f"{cue}\n" for cue in cues)
        case Format.VTT:
            cues = (vtt_cue(s.start, s.end, s.text) for s in _spoken(text))
            return "text/plain", "".join(f"{block}\n" for block in (VTT_HEAD, *cues))
        case Format.VERBOSE_JSON:
            return "application/json", _json(_verbose(options, text))
        case _:
            body: dict[str, Any] = {"text": text.text, "usage": _usage(text)}
            if options.logprobs:
                body["logprobs"] = _logprobs(text)
            return "application/json", _json(body)


class Events:
    """The events of a stream. The deltas together are the text."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._begun = False

    def delta(self, part: RecordingText) -> bytes | None:
        """The event that a part is transcribed; None if it says nothing."""
        if not part.text:
            return None
        text = f" {part.text}" if self._begun else part.text
        self._begun = True
        return self._event("transcript.text.delta", {"delta": text}, part)

    def done(self, text: RecordingText) -> bytes:
        """The event that all is transcribed, and the end of the stream."""
        gaps = {"gaps": gap_fields(text.gaps)} if text.gaps else {}
        return self._event("transcript.text.done", {"text": text.text, **gaps}, text) + END

    def failed(self, error: Mapping[str, Any]) -> bytes:
        """The event that nothing more comes, for a reason. `error`: the JSON of a refusal."""
        return f"data: {_json(error)}\n\n".encode()

    def _event(self, kind: str, fields: Mapping[str, Any], text: RecordingText) -> bytes:
        more = {"logprobs": _logprobs(text)} if self._options.logprobs else {}
        return f"data: {_json({'type': kind, **fields, **more})}\n\n".encode()


def _json(body: Mapping[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False)


def _spoken(text: RecordingText) -> list[RecordedSegment]:
    return [segment for segment in text.segments if segment.text.strip()]


def _usage(text: RecordingText) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(text.duration)}


def _verbose(options: Options, text: RecordingText) -> dict[str, Any]:
    translated = options.wish.translate
    return {
        "task": "translate" if translated else "transcribe",
        "language": "english" if translated else languages.name(text.language),
        "duration": text.duration,
        "text": text.text,
        **({"words": [_word(word) for word in text.words]} if options.words else {}),
        **({"segments": [_segment(*numbered) for numbered in enumerate(text.segments)]} if options.segments else {}),
        "usage": _usage(text),
        **({"gaps": gap_fields(text.gaps)} if text.gaps else {}),
    }


def _word(word: RecordedWord) -> dict[str, Any]:
    return {"word": word.text, "start": word.start, "end": word.end}


def _segment(number: int, segment: RecordedSegment) -> dict[str, Any]:
    """Every field that typed clients insist on. The workers keep tokens and other attempts to themselves."""
    return {
        "id": number,
        "seek": int(segment.start * _SEEK_PER_SECOND),
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": _logarithm(segment.confidence),
        "compression_ratio": _compression(segment.text),
        "no_speech_prob": 0.0,
    }


def _logarithm(confidence: float) -> float:
    return math.log(max(confidence, _LEAST_CONFIDENCE))


def _compression(text: str) -> float:
    """How much shorter text gets by compression, as Whisper measures loops."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def _logprobs(text: RecordingText) -> list[dict[str, Any]]:
    """A probability for each word, as the workers tell none for tokens."""
    return [
        {"token": word.text, "logprob": _logarithm(word.confidence), "bytes": list(word.text.encode())}
        for word in text.words
    ]
