"""The configuration of an OpenAI Realtime transcription session, in both shapes that clients send. Pure.

Nested is the present shape, flat the one of the beta. Source: openai 3.57.0, `types/realtime`, `types/beta/realtime`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from transcriber.domain import languages
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.errors import TranscriberError
from transcriber.gateway.dialects.dialect import Hearing
from transcriber.gateway.dialects.pace import PRE_ROLL

if TYPE_CHECKING:
    from collections.abc import Mapping

_RATE, _TELEPHONE_RATE = 24_000, 8_000  # Hz: OpenAI's for PCM, and that of ITU-T G.711
_RATES = 8_000, 192_000  # Hz, as the wire protocol allows (P-3)
_NESTED = {"audio/pcm": Encoding.S16LE, "audio/pcmu": Encoding.MULAW, "audio/pcma": Encoding.ALAW}
_FLAT = {"pcm16": Encoding.S16LE, "g711_ulaw": Encoding.MULAW, "g711_alaw": Encoding.ALAW}
_PCM = AudioFormat(Encoding.S16LE, _RATE, 1)
_DETECTIONS = "server_vad", "semantic_vad"
_SILENCE_MS = 500  # OpenAI's own default
_SILENCES_MS = 480, 5000  # what a daemon takes a shorter or longer pause as (Audio-Endpointing-Ms)
_LONGEST_SILENCE_MS = 60_000
_PROMPT_CHARACTERS = 896  # Whisper reads 224 tokens of prompt, of four characters in English


class Invalid(TranscriberError):  # noqa: N818 - what an `error` event tells
    """A client's event is not what it must be. `param`: the path of the field at fault."""

    def __init__(self, message: str, *, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """How a session is heard. `vad`: the server ends a turn after `silence_ms`; else the client commits."""

    format: AudioFormat = _PCM
    model: str | None = None
    language: str | None = None
    prompt: str | None = None
    vad: bool = True
    silence_ms: int = _SILENCE_MS

    @property
    def hearing(self) -> Hearing:
        return Hearing(
            format=self.format,
            model=self.model,
            language=self.language,
            prompt=self.prompt,
            speech=self.vad,
            endpointing_ms=self.silence_ms if self.vad else None,
        )

    def updated(self, session: Mapping[str, Any]) -> SessionOptions:
        """Take what a client changes, in either shape. What it does not name stays. Raises `Invalid`."""
        if is_flat(session):
            return self._updated(session, "session", "input_audio_format", "input_audio_transcription")
        kind = session.get("type", "transcription")
        if kind != "transcription":
            raise Invalid(f"session.type={kind!r:.80} is not allowed: transcription", param="session.type")
        audio = _object(session, "audio", "session")
        return self._updated(_object(audio, "input", "session.audio"), "session.audio.input", "format", "transcription")

    def _updated(self, given: Mapping[str, Any], path: str, audio_format: str, transcription: str) -> SessionOptions:
        changes: dict[str, Any] = {}
        if given.get(audio_format) is not None:
            changes["format"] = _format(given[audio_format], f"{path}.{audio_format}")
        changes |= _transcription(_object(given, transcription, path), f"{path}.{transcription}")
        if "turn_detection" in given:
            changes["vad"] = given["turn_detection"] is not None
            detection, where = _object(given, "turn_detection", path), f"{path}.turn_detection"
            if detection and detection.get("type") not in _DETECTIONS:
                raise Invalid(
                    f"{where}.type must be one of {', '.join(_DETECTIONS)}, or turn_detection null", param=where
                )
            if detection.get("silence_duration_ms") is not None:
                changes["silence_ms"] = _silence(detection["silence_duration_ms"], f"{where}.silence_duration_ms")
        return replace(self, **changes)

    def nested(self, session_id: str) -> dict[str, Any]:
        """What is in effect, in the present shape."""
        name = next(name for name, encoding in _NESTED.items() if encoding is self.format.encoding)
        rate = {"rate": self.format.rate} if self.format.encoding is Encoding.S16LE else {}
        audio = {
            "format": {"type": name, **rate},
            "noise_reduction": None,
            "transcription": self._told,
            "turn_detection": self._detection,
        }
        kind = {"type": "transcription", "object": "realtime.transcription_session", "id": session_id}
        return {**kind, "audio": {"input": audio}, "include": None}

    def flat(self, session_id: str) -> dict[str, Any]:
        """What is in effect, in the beta's shape."""
        return {
            "id": session_id,
            "object": "realtime.transcription_session",
            "input_audio_format": next(name for name, encoding in _FLAT.items() if encoding is self.format.encoding),
            "input_audio_transcription": self._told,
            "input_audio_noise_reduction": None,
            "turn_detection": self._detection,
            "client_secret": None,
        }

    @property
    def _told(self) -> dict[str, Any]:
        told = {"model": self.model, "language": self.language, "prompt": self.prompt}
        return {name: value for name, value in told.items() if value is not None}

    @property
    def _detection(self) -> dict[str, Any] | None:
        if not self.vad:
            return None
        prefix = round(PRE_ROLL * 1000)
        return {"type": "server_vad", "prefix_padding_ms": prefix, "silence_duration_ms": self.silence_ms}


def is_flat(session: Mapping[str, Any]) -> bool:
    """Whether a session is configured in the beta's shape."""
    return "turn_detection" in session or any(name.startswith("input_audio_") for name in session)


def _object(given: Mapping[str, Any], name: str, path: str) -> Mapping[str, Any]:
    value = given.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(f"{path}.{name} must be an object", code="invalid_type", param=f"{path}.{name}")
    return value


def _format(value: object, param: str) -> AudioFormat:
    match value:
        case str() if value in _FLAT:
            encoding, rate = _FLAT[value], None
        case {"type": str() as name, **rest} if name in _NESTED:
            encoding, rate = _NESTED[name], rest.get("rate")
        case _:
            allowed = ", ".join(_FLAT if isinstance(value, str) else _NESTED)
            raise Invalid(f"{param}={value!r:.80} is not allowed: {allowed}", param=param)
    if rate is None or encoding is not Encoding.S16LE:
        rate = _RATE if encoding is Encoding.S16LE else _TELEPHONE_RATE
    low, high = _RATES
    if not isinstance(rate, int) or not low <= rate <= high:
        raise Invalid(
            f"{param}.rate={rate!r:.80} is not allowed: {low} to {high}, usually {_RATE}", param=f"{param}.rate"
        )
    return AudioFormat(encoding, rate, 1)


def _transcription(given: Mapping[str, Any], path: str) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name in ("model", "language", "prompt"):
        if name in given:
            value = given[name]
            if value is not None and not isinstance(value, str):
                raise Invalid(f"{path}.{name} must be text", code="invalid_type", param=f"{path}.{name}")
            changes[name] = value or None
    if "languages" in given or changes.get("language"):
        changes["language"] = _language(changes.get("language") or given.get("languages"), f"{path}.language")
    words = given.get("keywords")
    if words and isinstance(words, list) and not changes.get("prompt"):
        changes["prompt"] = ", ".join(word for word in words if isinstance(word, str))
    if changes.get("prompt"):
        changes["prompt"] = changes["prompt"][-_PROMPT_CHARACTERS:]
    return changes


def _language(value: object, param: str) -> str | None:
    """The daemon's code of a language, or of the only one in a list. Several are for the model to tell apart."""
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else languages.AUTO if value else None
    if value is None:
        return None
    code = languages.code(value) if isinstance(value, str) else None
    if code is None:
        raise Invalid(f"{param}={value!r:.80} is not allowed: {languages.ALLOWED}", param=param)
    return code


def _silence(value: object, param: str) -> int:
    """The pause that is in effect."""
    if not isinstance(value, int | float) or not 0 <= value <= _LONGEST_SILENCE_MS:
        raise Invalid(f"{param}={value!r:.80} is not allowed: 0 to {_LONGEST_SILENCE_MS}", param=param)
    least, most = _SILENCES_MS
    return round(min(max(value, least), most))
