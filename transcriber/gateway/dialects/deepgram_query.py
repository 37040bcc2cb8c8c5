"""Reads the query of Deepgram's live endpoint. Pure.

Source: https://developers.deepgram.com/reference/speech-to-text/listen-streaming
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transcriber.domain import languages
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.gateway.dialects.dialect import Hearing
from transcriber.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    Query = Mapping[str, list[str]]

ENCODINGS = {
    "linear16": Encoding.S16LE,
    "linear32": Encoding.F32LE,
    "mulaw": Encoding.MULAW,
    "alaw": Encoding.ALAW,
}
_TELEPHONE_RATE = 8000  # Hz: of mu-law and A-law where no rate is given, as in ITU-T G.711
RATES = 8000, 192_000  # Hz, as the wire protocol allows (P-3)
MIXED, SPLIT = 8, 20  # most channels: of one stream (P-3); of `multichannel`, as Deepgram allows
_UTTERANCE_END = 1000, 60_000  # ms: Deepgram's least; a minute is longer than any pause that ends an utterance
_ENDPOINTING = 0, 60_000  # ms
_PROMPT_CHARACTERS = 896  # of key terms: Whisper reads 224 tokens of prompt, of four characters in English
# What cannot be left out in silence: text would go to nobody, or show what was to be hidden.
_REFUSED = ("callback", "redact")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False, "": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """What a client asks for.

    - `format`: of its audio. None: the audio begins with a WAV head that says it.
    - `split`: a stream for each channel.
    - `speech_final`: whether results say that a pause ended them.
    - `utterance_end`: seconds without a word after which an utterance is over.
    """

    format: AudioFormat | None
    split: bool = False
    model: str | None = None
    language: str | None = None
    prompt: str | None = None
    interim: bool = False
    endpointing_ms: int | None = None
    speech_final: bool = True
    utterance_end: float | None = None
    vad_events: bool = False

    def hearing(self, audio_format: AudioFormat) -> Hearing:
        """How each of its streams is heard."""
        return Hearing(
            format=audio_format,
            model=self.model,
            language=self.language,
            prompt=self.prompt,
            partials=self.interim,
            speech=self.vad_events or self.utterance_end is not None,
            endpointing_ms=self.endpointing_ms,
        )


def listening(query: Query) -> Listening:
    """Read a query. Unknown fields are ignored. Raises `Problem` 400 for a field that would spoil the text."""
    for name in _REFUSED:
        if _last(query, name).lower() not in {"", "false"}:
            raise _problem(name, query[name][-1], "this gateway cannot do it; leave it out")
    endpointing = _last(query, "endpointing").lower()
    utterance_end = _last(query, "utterance_end_ms")
    asked = utterance_end.lower() not in {"", "false"}
    return Listening(
        format=_format(query),
        split=_boolean(query, "multichannel"),
        model=_last(query, "model") or None,
        language=_language(query),
        prompt=_prompt(query),
        interim=_boolean(query, "interim_results"),
        endpointing_ms=None if endpointing in {"", "true", "false"} else _number(query, "endpointing", *_ENDPOINTING),
        speech_final=endpointing != "false",
        utterance_end=_number(query, "utterance_end_ms", *_UTTERANCE_END) / 1000 if asked else None,
        vad_events=_boolean(query, "vad_events"),
    )


def most_channels(*, split: bool) -> int:
    """How many channels audio may have."""
    return SPLIT if split else MIXED


def _format(query: Query) -> AudioFormat | None:
    name = _last(query, "encoding")
    if not name:
        return None
    encoding = ENCODINGS.get(name.lower())
    if encoding is None:
        raise _problem("encoding", name, f"{', '.join(ENCODINGS)}, or none with audio that begins with a WAV head")
    wide = encoding in {Encoding.S16LE, Encoding.F32LE}
    if wide and not _last(query, "sample_rate"):
        raise _problem("sample_rate", "", f"needed with encoding={name}: {RATES[0]} to {RATES[1]}")
    rate = _number(query, "sample_rate", *RATES) if _last(query, "sample_rate") else _TELEPHONE_RATE
    most = most_channels(split=_boolean(query, "multichannel"))
    return AudioFormat(encoding, rate, _number(query, "channels", 1, most) if _last(query, "channels") else 1)


def _language(query: Query) -> str | None:
    """The language for the daemon; `auto` where Deepgram would detect it or take several."""
    named = _last(query, "language")
    if named.lower() == "multi" or (not named and _last(query, "detect_language").lower() not in {"", "false", "0"}):
        return languages.AUTO
    if not named:
        return None
    code = languages.code(named)
    if code is None:
        raise _problem("language", named, f"multi, {languages.ALLOWED}")
    return code


def _prompt(query: Query) -> str | None:
    """Key terms as a prompt. An intensifier after the last colon of a keyword is left out."""
    words = [*query.get("keyterm", ()), *(word.rpartition(":")[0] or word for word in query.get("keywords", ()))]
    prompt = ", ".join(word.strip() for word in words if word.strip())
    return prompt[:_PROMPT_CHARACTERS] or None


def _last(query: Query, name: str) -> str:
    values = query.get(name)
    return values[-1].strip() if values else ""


def _boolean(query: Query, name: str) -> bool:
    text = _last(query, name)
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise _problem(name, text, "true or false")
    return value


def _number(query: Query, name: str, low: int, high: int) -> int:
    text = _last(query, name)
    try:
        value = int(text) if len(text) <= len(str(high)) else None
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise _problem(name, text, f"a whole number from {low} to {high}")
    return value


def _problem(name: str, value: str, allowed: str) -> Problem:
    shown = f"{name}={value[:80]!r} is not allowed" if value else f"{name} is missing"
    return Problem(400, f"{shown}: {allowed}", code="INVALID_QUERY_PARAMETER", param=name)
