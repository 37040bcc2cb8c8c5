"""Whatever a client sends, a dialect answers with commands and never with an exception."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.gateway.dialects.decode_stream import DecodeStream, ParameterError, read_wishes
from transcriber.gateway.dialects.dialect import Begin, Close, Dialect, Hearing
from transcriber.gateway.dialects.vosk import Vosk
from transcriber.gateway.dialects.wyoming import Program, Wyoming

CHARACTERS = st.characters(exclude_categories=())  # half a surrogate, too, which JSON can spell
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(CHARACTERS, max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["config", "eof", "reset", "sample_rate", "words", "max_alternatives", "model", "type"])
TEXTS = st.text(max_size=20) | st.dictionaries(NAMES, VALUES | st.dictionaries(NAMES, VALUES)).map(json.dumps)
KINDS = st.sampled_from(["describe", "transcribe", "audio-start", "audio-chunk", "audio-stop", "ping", "x"])
FIELDS = st.sampled_from(["rate", "width", "channels", "language", "name", "text", "transcript_names"])
EVENTS = st.fixed_dictionaries({"type": KINDS, "data": st.dictionaries(FIELDS, VALUES)})


def take(dialect: Dialect, messages: list[str | bytes]) -> None:
    """What the gateway does: it writes headers, and nothing more is heard after the connection is closed."""
    for message in messages:
        for command in dialect.received(message):
            if isinstance(command, Begin):
                (command.hearing.prompt or "").encode()
            if isinstance(command, Close):
                return


@given(st.lists(TEXTS | st.binary(max_size=20)))
def test_vosk_takes_any_message(messages: list[str | bytes]) -> None:
    take(Vosk(), messages)


@given(st.lists(TEXTS | st.binary(max_size=20)))
def test_decode_stream_takes_any_message(messages: list[str | bytes]) -> None:
    take(DecodeStream(Hearing(format=AudioFormat(Encoding.S16LE, 16_000, 1))), messages)


@given(st.lists(st.binary(max_size=40) | EVENTS.map(lambda event: json.dumps(event).encode() + b"\n")))
def test_wyoming_takes_any_bytes(messages: list[str | bytes]) -> None:
    take(Wyoming(lambda: Program("1.0")), messages)


@given(st.dictionaries(st.sampled_from(["sample_rate", "encoding", "channels", "language"]), st.lists(st.text())))
def test_any_parameter_is_read_or_named(query: dict[str, list[str]]) -> None:
    wrong = ""
    try:
        read_wishes(query)
    except ParameterError as error:
        wrong = error.name
    assert wrong in {"", *query}
