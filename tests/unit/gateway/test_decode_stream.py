"""The project's own WebSocket: everything the daemon says about a stream, as one JSON object each."""

from __future__ import annotations

import json
from typing import Any

import pytest
from daemon_says import ended, final, flushed, gap, partial, rejected

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.gateway.dialects.decode_stream import DecodeStream, ParameterError, QueueStatus, read_wishes
from transcriber.gateway.dialects.dialect import Audio, Begin, Close, Command, End, Flush, Hearing, Keepalive, Send

HEARING = Hearing(format=AudioFormat(Encoding.S16LE, 16_000, 1))
SECOND = bytes(32_000)
STATUS = QueueStatus(pending=2, capacity=8, estimated_wait=0.5, rtf=0.1, workers=3)


def told(*commands: Command) -> list[dict[str, Any]]:
    return [json.loads(command.message) for command in commands if isinstance(command, Send)]


def hear(stream: DecodeStream, *messages: dict[str, Any]) -> list[Command]:
    return [command for message in messages for command in stream.heard(0, message)]


@pytest.fixture
def stream() -> DecodeStream:
    """A connection that has sent one second of audio."""
    opened = DecodeStream(HEARING)
    assert [*opened.opened(), *opened.received(SECOND)] == [Begin(HEARING), Audio(SECOND)]
    return opened


def test_address_says_how_audio_is_heard() -> None:
    """Every parameter has a default, and those that nobody knows are ignored."""
    assert read_wishes({}).hearing == HEARING
    wishes = read_wishes(
        {
            "sample_rate": ["16000", "8000"],
            "encoding": ["pcm_mulaw"],
            "channels": ["2"],
            "language": ["de-DE"],
            "queue_status": ["1"],
            "colour": ["blue"],
        }
    )
    assert wishes.hearing == Hearing(format=AudioFormat(Encoding.MULAW, 8_000, 2), language="de")
    assert wishes.queue_status


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sample_rate", "7999"),
        ("sample_rate", "192001"),
        ("sample_rate", "16k"),
        ("sample_rate", "-16000"),
        ("sample_rate", "9" * 5000),
        ("sample_rate", "²"),
        ("channels", "0"),
        ("channels", "9"),
        ("encoding", "opus"),
        ("language", "xx"),
        ("queue_status", "often"),
    ],
)
def test_bad_parameter_is_named_with_what_is_allowed(name: str, value: str) -> None:
    with pytest.raises(ParameterError) as caught:
        read_wishes({name: [value]})
    assert caught.value.name == name
    assert str(caught.value).startswith(f"{name}={value[:64]!r} is not allowed: ")


def test_final_has_its_words_and_a_partial_its_stable_part(stream: DecodeStream) -> None:
    """A partial may be left out for a client that reads slowly; a final may not."""
    shown, settled = hear(stream, partial("turn le", "turn", 1.0), final("turn left", 1.0, confidence=0.5))
    assert isinstance(shown, Send)
    assert isinstance(settled, Send)
    assert (shown.optional, settled.optional) == (True, False)
    common = {"start": 1.0, "end": 1.2, "language": "en", "model": "m"}
    assert told(shown) == [
        {"type": "partial", "transcription": "turn le", "stable": "turn", "confidence": 0.9, **common}
    ]
    words = [
        {"word": "turn", "start": 1.0, "end": 1.1, "confidence": 0.5},
        {"word": "left", "start": 1.1, "end": 1.2, "confidence": 0.5},
    ]
    assert told(settled) == [
        {"type": "final", "transcription": "turn left", "confidence": 0.5, "words": words, **common}
    ]


def test_lost_audio_is_told_with_its_reason(stream: DecodeStream) -> None:
    """Whether the daemon lost it or the gateway."""
    lost = [*hear(stream, gap(1.0, 2.0, "deadline")), *stream.refused(0, "no_workers", 2.0, 2.5)]
    assert told(*lost) == [
        {"type": "gap", "transcription": "", "start": 1.0, "end": 2.0, "reason": "deadline"},
        {"type": "gap", "transcription": "", "start": 2.0, "end": 2.5, "reason": "no_workers"},
    ]


def test_end_is_answered_with_the_account_of_all_sessions(stream: DecodeStream) -> None:
    """Then the connection closes. Times after a session that timed out go on."""
    hear(stream, ended(1.0, deadline=0.5))
    assert list(stream.received(SECOND)) == [Begin(HEARING), Audio(SECOND)]
    (second,) = told(*hear(stream, final("one", 0.25)))
    assert (second["start"], second["words"][0]["start"]) == (1.25, 1.25)
    assert list(stream.received('{"type": "end"}')) == [End()]
    assert list(stream.received(SECOND)) == []
    account, close = hear(stream, ended(1.0, deadline=0.25))
    assert told(account) == [
        {
            "type": "ended",
            "transcription": "",
            "start": 0.0,
            "end": 2.0,
            "received": 2.0,
            "transcribed": 1.25,
            "silent": 0.0,
            "gap": {"deadline": 0.75},
        }
    ]
    assert close == Close(1000)


def test_end_without_audio_is_answered_at_once() -> None:
    account, close = DecodeStream(HEARING).received('{"type": "end"}')
    assert told(account)[0]["received"] == 0.0
    assert close == Close(1000)


def test_flush_and_keepalive_go_to_the_daemon(stream: DecodeStream) -> None:
    """Without a session there is nothing to flush, and nothing to keep alive."""
    assert list(stream.received('{"type": "flush"}')) == [Flush()]
    assert told(*hear(stream, flushed(0.5))) == [{"type": "flushed", "transcription": "", "end": 0.5}]
    assert list(stream.received('{"type": "keepalive"}')) == [Keepalive()]
    idle = DecodeStream(HEARING)
    assert [*idle.received('{"type": "keepalive"}'), *idle.received('{"type": "flush"}')] == []


@pytest.mark.parametrize("message", ["hello", "[]", "1", '{"type": 1}', '{"type": []}', "{}", "[" * 100_000])
def test_unknown_text_message_is_told_and_nothing_else(stream: DecodeStream, message: str) -> None:
    (answer,) = told(*stream.received(message))
    assert answer["type"] == "error"
    assert list(stream.received(SECOND)) == [Audio(SECOND)]


def test_rejected_audio_closes_with_the_daemons_words(stream: DecodeStream) -> None:
    answer, close = hear(stream, rejected("container", "this is an Ogg file"))
    assert told(answer) == [{"type": "error", "message": "this is an Ogg file"}]
    assert close == Close(1003, "container")


def test_queue_status_comes_only_where_it_was_asked_for() -> None:
    """At once, and then with every tick; never in place of text."""
    asking = DecodeStream(HEARING, lambda: STATUS)
    first, second = [*asking.opened(), *asking.tick(1.0)]
    assert isinstance(first, Send)
    assert first.optional
    wanted = {"type": "queue_status", "pending": 2, "capacity": 8, "estimated_wait": 0.5, "rtf": 0.1, "workers": 3}
    assert told(first, second) == [wanted, wanted]
    silent = DecodeStream(HEARING)
    assert [*silent.opened(), *silent.tick(1.0)] == []
