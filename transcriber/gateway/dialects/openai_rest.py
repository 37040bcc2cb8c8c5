"""OpenAI's API for recordings: what a form asks for, which models there are, what is wrong. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from transcriber.domain import languages
from transcriber.gateway.dialects.recording import Wish
from transcriber.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Names that existing clients ask for. Any other name is accepted as well; these are listed, for clients that choose.
KNOWN_MODELS = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-transcribe")
_OWNER = "transcriber"
_SHOWN = 100  # characters of a bad value that an error repeats


class Format(StrEnum):
    """What `response_format` may be."""

    JSON = "json"
    TEXT = "text"
    SRT = "srt"
    VTT = "vtt"
    VERBOSE_JSON = "verbose_json"


_STREAMED: Final = {Format.JSON, Format.TEXT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a form asks for. `segments` and `words` are for `verbose_json`, `logprobs` for `json`."""

    wish: Wish
    format: Format = Format.JSON
    segments: bool = True
    words: bool = False
    logprobs: bool = False
    stream: bool = False


def options(fields: Iterable[tuple[str, str]], *, translate: bool = False) -> Options:
    """Read the fields of a form, without its file. Raises `Problem` 400, which names the field.

    What is unknown is ignored, as new clients send new fields.
    """
    values: dict[str, list[str]] = {}
    for name, value in fields:
        values.setdefault(name.removesuffix("[]"), []).append(value)
    chosen = _format(_last(values, "response_format"))
    granularities = set(values.get("timestamp_granularities", ()))
    if unknown := granularities - {"word", "segment"}:
        raise _bad("timestamp_granularities", min(unknown), "word, segment")
    if "word" in granularities and chosen is not Format.VERBOSE_JSON:
        message = f"timestamp_granularities 'word' needs response_format 'verbose_json', not {chosen.value!r}"
        raise Problem(400, message, code="invalid_value", param="timestamp_granularities")
    stream = _flag("stream", _last(values, "stream"))
    if stream and chosen not in _STREAMED:
        raise _bad("response_format", chosen.value, "json, text with stream=true")
    _check_temperature(_last(values, "temperature"))
    language = _language(_last(values, "language"), values.get("languages", []))
    return Options(
        wish=Wish(
            model=_last(values, "model"),
            language=languages.AUTO if translate and language is None else language,
            prompt=_prompt(_last(values, "prompt"), values.get("keywords", [])),
            translate=translate,
        ),
        format=chosen,
        segments="segment" in granularities or not granularities,
        words="word" in granularities,
        logprobs="logprobs" in values.get("include", ()),
        stream=stream,
    )


def missing_file() -> Problem:
    """The problem of a form without a file."""
    return Problem(
        400, "the form has no field 'file' with audio in it", code="missing_required_parameter", param="file"
    )


def models(workers: Iterable[str]) -> dict[str, Any]:
    """The answer to `GET /v1/models`: the workers' models, and the names that are known from elsewhere."""
    return {"object": "list", "data": [_model(name) for name in _names(workers)]}


def model(name: str, workers: Iterable[str]) -> dict[str, Any]:
    """The answer to `GET /v1/models/{name}`. Raises `Problem` 404."""
    names = _names(workers)
    if name not in names:
        detail = f"no model {name[:_SHOWN]!r}; known: {', '.join(names)}. A transcription takes any name"
        raise Problem(404, detail, code="model_not_found", param="model")
    return _model(name)


def _names(workers: Iterable[str]) -> list[str]:
    return [*dict.fromkeys([*(name for name in workers if name), *KNOWN_MODELS])]


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": _OWNER}  # when it was made is not known


def _last(values: dict[str, list[str]], name: str) -> str:
    return values.get(name, [""])[-1].strip()


def _bad(param: str, value: str, allowed: str, code: str = "invalid_value") -> Problem:
    return Problem(400, f"{param}={value[:_SHOWN]!r}; allowed: {allowed}", code=code, param=param)


def _format(value: str) -> Format:
    if value == "diarized_json":
        message = "response_format 'diarized_json' is not available: speakers are not told apart"
        raise Problem(400, message, code="unsupported_value", param="response_format")
    try:
        return Format(value or Format.JSON)
    except ValueError:
        raise _bad("response_format", value, ", ".join(Format)) from None


def _flag(param: str, value: str) -> bool:
    lower = value.lower()
    if lower not in {"", "true", "false", "1", "0"}:
        raise _bad(param, value, "true, false")
    return lower in {"true", "1"}


def _check_temperature(value: str) -> None:
    """Check what the workers choose for themselves, so that a mistake is told."""
    try:
        good = 0 <= float(value or "0") <= 1
    except ValueError:
        good = False
    if not good:
        raise _bad("temperature", value, "0 to 1")


def _language(value: str, several: Sequence[str]) -> str | None:
    """The only language that is named; of several, the worker finds the right one."""
    for one in (value, *several) if value else several:
        if languages.code(one) is None:
            raise _bad("language" if one == value else "languages", one, languages.ALLOWED, "unsupported_language")
    if value:
        return languages.code(value)
    if len(several) == 1:
        return languages.code(several[0])
    return languages.AUTO if several else None


def _prompt(text: str, keywords: Sequence[str]) -> str | None:
    """The prompt with the words to expect, which a model takes in the same place."""
    return ", ".join(part for part in (text, *(word.strip() for word in keywords)) if part) or None
