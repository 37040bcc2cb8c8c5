"""Recordings in JSON: `POST /transcribe`, `POST /v2/decode/batch/{model}`, and `GET /stats`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transcriber.domain import languages
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.timeline import SAMPLE_RATE
from transcriber.gateway.dialects.recording import Wish, gap_fields
from transcriber.gateway.native import base64_decode
from transcriber.gateway.problems import Problem
from transcriber.protocol import incoming

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transcriber.gateway.dialects.recording import RecordingText

_RAW = {
    "pcm": Encoding.S16LE,
    "raw": Encoding.S16LE,
    "s16le": Encoding.S16LE,
    "f32le": Encoding.F32LE,
    **{str(encoding): encoding for encoding in Encoding},
}
_SHOWN = 100  # characters of a bad value that an error repeats


def audio(body: Mapping[str, Any]) -> bytes:
    """The audio of `POST /transcribe`. Raises `Problem` 400."""
    return _base64("audio_data", body.get("audio_data"))


def buffer(body: Mapping[str, Any]) -> bytes:
    """The audio of a batch: `audio_buffer`, a list of bytes, or base64. Raises `Problem` 400."""
    found = body.get("audio_buffer")
    if not isinstance(found, list):
        return _base64("audio_buffer", found)
    try:
        return bytes(found)
    except (TypeError, ValueError):
        raise _bad("audio_buffer", "a list with other members", "whole numbers from 0 to 255, or base64") from None


def raw(body: Mapping[str, Any], *, default: bool = False) -> AudioFormat | None:
    """The format of audio without a head, if `format` names one, or by `default`: 16 kHz mono, 16 bits.

    Every other `format` is a file's name for itself, which is found in its head. Raises `Problem` 400.
    """
    named = body.get("format")
    encoding = _RAW.get(named.lower()) if isinstance(named, str) else None
    if encoding is None and not (default and named is None):
        return None
    rate = _number(body, "sample_rate", SAMPLE_RATE, incoming.RATES)
    return AudioFormat(encoding or Encoding.S16LE, rate, _number(body, "channels", 1, incoming.CHANNEL_COUNTS))


def wish(body: Mapping[str, Any], model: str = "") -> Wish:
    """How it is to be heard. Raises `Problem` 400 for an unknown language."""
    language = body.get("language")
    if language is None or language == "":
        return Wish(model=model)
    code = languages.code(language) if isinstance(language, str) else None
    if code is None:
        raise _bad("language", str(language), languages.ALLOWED)
    return Wish(model=model, language=code)


def transcribed(job: str, text: RecordingText, seconds: float) -> dict[str, Any]:
    """The answer of `POST /transcribe`. `seconds`: from the request's arrival to now."""
    return {
        "job_id": job,
        "status": "completed",
        "transcription": text.text,
        "processing_time_ms": round(seconds * 1000, 3),
        **_gaps(text),
    }


def decoded(body: Mapping[str, Any], text: RecordingText, seconds: float) -> dict[str, Any]:
    """The answer of a batch; its `description` comes back."""
    return {
        "transcription": text.text,
        "description": body.get("description"),
        "model": text.model,
        "processing_time_ms": round(seconds * 1000, 3),
        **_gaps(text),
    }


def stats(recordings: int, processing: float, latency: float, elapsed: float) -> dict[str, Any]:
    """The answer of `GET /stats`: since the start, in seconds; `throughput` in recordings a second."""
    return {
        "total_processed": recordings,
        "processing_time_s": processing,
        "average_latency_ms": latency / recordings * 1000 if recordings else 0.0,
        "throughput": recordings / elapsed if elapsed else 0.0,
    }


def in_seed_shape(problem: Problem) -> dict[str, Any]:
    """`{"status": "failed", "error", "code"}`."""
    return {"status": "failed", "error": problem.message, "code": problem.code}


def _gaps(text: RecordingText) -> dict[str, Any]:
    return {"gaps": gap_fields(text.gaps)} if text.gaps else {}


def _base64(param: str, value: object) -> bytes:
    if not isinstance(value, str):
        raise _bad(param, type(value).__name__, "a string of base64")
    try:
        return base64_decode(value)
    except ValueError as error:
        raise _bad(param, value, f"base64 ({error})") from None


def _number(body: Mapping[str, Any], name: str, default: int, allowed: range) -> int:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        raise _bad(name, str(value), f"{allowed.start} to {allowed.stop - 1}")
    return value


def _bad(param: str, value: str, allowed: str) -> Problem:
    message = f"{param}={value[:_SHOWN]!r}; allowed: {allowed}"
    return Problem(400, message, code="invalid_value", param=param)
