"""The short way of chunks through a dialect: what passes is what `received` would have published, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcriber.gateway.dialects.decode_stream import DecodeStream, read_wishes
from transcriber.gateway.dialects.deepgram import Deepgram
from transcriber.gateway.dialects.deepgram_query import listening
from transcriber.gateway.dialects.dialect import Audio, Command, Dialect
from transcriber.gateway.dialects.openai_realtime import Realtime
from transcriber.gateway.dialects.vosk import Vosk

_QUERIES = [
    "",
    "channels=2",
    "channels=2&multichannel=true",
    "utterance_end_ms=1000",
]


def _deepgram(query: str) -> Dialect:
    fields = {"encoding": ["linear16"], "sample_rate": ["16000"]}
    fields |= {name: [value] for name, _, value in (field.partition("=") for field in query.split("&") if field)}
    return Deepgram(listening(fields), "id", "2026-12-01")


def _stream(query: str) -> Dialect:
    return DecodeStream(read_wishes({"channels": ["2" if "2" in query else "1"]}).hearing)


_messages = st.lists(
    st.one_of(
        st.integers(0, 9).map(bytes),
        st.sampled_from([bytes(3200), '{"type": "flush"}', '{"type": "end"}', '{"type": "Finalize"}']),
        st.sampled_from(['{"type": "CloseStream"}', '{"type": "KeepAlive"}', "ended"]),
    ),
    max_size=12,
)
_ENDED = {"type": "ended", "received": 0.0, "transcribed": 0.0, "silent": 0.0, "gap": {}, "pending": 0.0}


def _hear(dialect: Dialect, message: str | bytes, *, short: bool) -> list[Command]:
    if message == "ended":
        return list(dialect.heard(0, _ENDED)) if not isinstance(dialect, Deepgram) or dialect._lines else []
    if short and isinstance(message, bytes) and dialect.passes(message):
        return [Audio(message)]
    return list(dialect.received(message))


@pytest.mark.parametrize("query", _QUERIES)
@pytest.mark.parametrize("make", [_deepgram, _stream])
@given(messages=_messages)
def test_chunk_that_passes_is_what_would_be_published(make, query: str, messages: list[str | bytes]) -> None:
    """Both ways give the same commands for any messages, split frames and ended sessions included."""
    ours, theirs = make(query), make(query)
    for message in messages:
        assert _hear(ours, message, short=True) == _hear(theirs, message, short=False)


def test_chunk_passes_once_a_session_is_open() -> None:
    """Else the short way would cost CPU, unseen. A dialect with an answer to each message has none."""
    for dialect in (_deepgram(""), _stream("")):
        assert not dialect.passes(bytes(3200))
        list(dialect.received(bytes(3200)))
        assert dialect.passes(bytes(3200))
        assert not dialect.passes(bytes(3201))
    assert not Vosk().passes(bytes(3200))
    assert not Realtime("id").passes(bytes(3200))
