"""What an OpenAI form asks for, and how its mistakes are told."""

from __future__ import annotations

from typing import Any

import pytest

from transcriber.gateway.dialects import openai_rest
from transcriber.gateway.dialects.openai_rest import Format, Options, options
from transcriber.gateway.dialects.recording import Wish
from transcriber.gateway.problems import Problem, in_openai_shape


def test_form_without_fields_asks_for_json() -> None:
    """Only the file is needed, not even a model."""
    assert options([]) == Options(wish=Wish())


def test_every_field_that_counts_is_read() -> None:
    """As the official client sends them: lists with brackets, scalars as text."""
    fields = [
        ("model", "whisper-1"),
        ("language", "de-DE"),
        ("prompt", "Grüße"),
        ("keywords[]", "Kiel"),
        ("keywords[]", " Ulm "),
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "word"),
        ("temperature", "0.2"),
        ("chunking_strategy", "auto"),
        ("unheard_of", "x"),
    ]
    asked = options(fields)
    assert asked.wish == Wish(model="whisper-1", language="de", prompt="Grüße, Kiel, Ulm")
    assert (asked.format, asked.words, asked.segments, asked.stream) == (Format.VERBOSE_JSON, True, False, False)
    assert options([("stream", "true"), ("include[]", "logprobs")]).logprobs


def test_translation_leaves_the_spoken_language_open() -> None:
    """This path has no field for it, and what is spoken is rarely what the workers expect by default."""
    assert options([], translate=True).wish == Wish(translate=True, language="auto")
    assert options([("language", "de")], translate=True).wish.language == "de"


@pytest.mark.parametrize(
    ("several", "language"), [(["de"], "de"), (["de", "en"], "auto"), ([], None), (["auto"], "auto")]
)
def test_several_languages_leave_the_choice_to_the_worker(several: list[str], language: str | None) -> None:
    """One is a hint; of more, the worker finds the right one."""
    assert options([("languages[]", one) for one in several]).wish.language == language


@pytest.mark.parametrize("granularity", ["segment", ""])
def test_segments_come_unless_only_words_are_asked_for(granularity: str) -> None:
    """`segment` alone is the default."""
    fields = [("timestamp_granularities[]", granularity)] if granularity else []
    asked = options([("response_format", "verbose_json"), *fields])
    assert (asked.segments, asked.words) == (True, False)


@pytest.mark.parametrize(
    ("fields", "param", "code", "told"),
    [
        ({"response_format": "diarized_json"}, "response_format", "unsupported_value", "speakers are not told apart"),
        ({"response_format": "xml"}, "response_format", "invalid_value", "'xml'; allowed: json, text, srt, vtt"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities", "invalid_value", "needs response_format"),
        ({"timestamp_granularities[]": "day"}, "timestamp_granularities", "invalid_value", "'day'; allowed: word, seg"),
        ({"language": "klingon"}, "language", "unsupported_language", "'klingon'; allowed: auto, or the ISO 639"),
        ({"languages[]": "xx"}, "languages", "unsupported_language", "'xx'; allowed"),
        ({"temperature": "hot"}, "temperature", "invalid_value", "'hot'; allowed: 0 to 1"),
        ({"temperature": "nan"}, "temperature", "invalid_value", "'nan'; allowed: 0 to 1"),
        ({"temperature": "2"}, "temperature", "invalid_value", "'2'; allowed: 0 to 1"),
        ({"stream": "maybe"}, "stream", "invalid_value", "'maybe'; allowed: true, false"),
        ({"stream": "true", "response_format": "srt"}, "response_format", "invalid_value", "with stream=true"),
    ],
)
def test_mistake_names_field_value_and_choice(fields: dict[str, str], param: str, code: str, told: str) -> None:
    """In the shape that the official clients turn into an error with these attributes."""
    with pytest.raises(Problem) as caught:
        options(fields.items())
    error = in_openai_shape(caught.value)["error"]
    assert (caught.value.status, error["type"]) == (400, "invalid_request_error")
    assert (error["param"], error["code"]) == (param, code)
    assert told in error["message"]


def test_models_are_the_workers_and_the_known_names() -> None:
    """Each once, ours first. A client that lists models finds what it was built for."""
    listed = openai_rest.models(["base.en", "", "base.en", "tiny"])
    ids = [model["id"] for model in listed["data"]]
    assert ids == ["base.en", "tiny", *openai_rest.KNOWN_MODELS]
    typed: dict[str, Any] = {"id": "tiny", "object": "model", "created": 0, "owned_by": "transcriber"}
    assert openai_rest.model("tiny", ["base.en", "tiny"]) == typed
    with pytest.raises(Problem, match="no model 'large'; known: tiny, whisper-1"):
        openai_rest.model("large", ["tiny"])
