"""Vosk's protocol: one reply to each binary message, the rest of the text at eof, and nothing lost between them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from daemon_says import ended, final, flushed, gap, partial, rejected
from hypothesis import given
from hypothesis import strategies as st

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.gateway.dialects.dialect import Audio, Begin, Close, Command, End, Flush, Send
from transcriber.gateway.dialects.vosk import Vosk

FRAME = bytes(3200)  # 0.2 s at Vosk's default rate of 8 kHz
EOF = '{"eof" : 1}'
RESET = '{"reset" : 1}'


def replies(*commands: Command) -> list[dict[str, Any]]:
    return [json.loads(command.message) for command in commands if isinstance(command, Send)]


def send(vosk: Vosk, *messages: str | bytes) -> list[Command]:
    return [command for message in messages for command in vosk.received(message)]


def hear(vosk: Vosk, *messages: dict[str, Any]) -> list[Command]:
    return [command for message in messages for command in vosk.heard(0, message)]


def config(**values: object) -> str:
    return json.dumps({"config": values})


def test_session_begins_with_the_first_audio() -> None:
    """The rate is the configured one, or 8 kHz; the configuration itself is answered by nothing."""
    plain, configured = Vosk(), Vosk()
    begin = next(command for command in send(plain, FRAME) if isinstance(command, Begin))
    assert begin.hearing.format == AudioFormat(Encoding.S16LE, 8_000, 1)
    phrases = ["gate five", "[unk]", "platform nine"]
    assert send(configured, config(sample_rate=16000.0, phrase_list=phrases, model="x")) == []
    begin, audio, reply = send(configured, FRAME)
    assert (begin.hearing.format.rate, begin.hearing.model) == (16_000, "x")
    assert begin.hearing.prompt == "gate five, platform nine"
    assert audio == Audio(FRAME)
    assert replies(reply) == [{"partial": ""}]


def test_reply_is_the_partial_until_a_window_closes() -> None:
    """Each frame is answered with what is known then; a final is told once, with its words."""
    vosk = Vosk()
    send(vosk, FRAME)
    assert hear(vosk, partial("turn")) == []
    assert replies(*send(vosk, FRAME)) == [{"partial": "turn"}]
    hear(vosk, final("turn left", 1.0, confidence=0.5))
    words = [
        {"conf": 0.5, "start": 1.0, "end": 1.1, "word": "turn"},
        {"conf": 0.5, "start": 1.1, "end": 1.2, "word": "left"},
    ]
    assert replies(*send(vosk, FRAME, FRAME)) == [{"text": "turn left", "result": words}, {"partial": ""}]


def test_two_finals_take_two_replies() -> None:
    """Utterances stay apart as long as frames come."""
    vosk = Vosk()
    send(vosk, config(words=False), FRAME)
    hear(vosk, final("one"), final(""), final("two"))
    assert replies(*send(vosk, FRAME, FRAME, FRAME)) == [{"text": "one"}, {"text": "two"}, {"partial": ""}]


def test_eof_is_answered_once_everything_is_settled() -> None:
    """The reply joins what no frame was answered with, then the connection closes."""
    vosk = Vosk()
    send(vosk, FRAME)
    hear(vosk, final("one", 0.0), partial("tw"))
    assert send(vosk, EOF) == [End()]
    assert hear(vosk, final("two", 2.0)) == []
    reply, close = hear(vosk, ended(0.2))
    assert replies(reply)[0]["text"] == "one two"
    assert [word["word"] for word in replies(reply)[0]["result"]] == ["one", "two"]
    assert close == Close(1000)
    assert send(vosk, FRAME, EOF) == []


@pytest.mark.parametrize("text", [EOF, '{"eof": true}', '{"eof":1}'])
def test_eof_without_audio_is_answered_at_once(text: str) -> None:
    assert send(Vosk(), text) == [Send('{"text": ""}'), Close(1000)]


def test_eof_after_the_daemon_ended_is_answered_at_once() -> None:
    """A session that timed out is over; what it said is still told."""
    vosk = Vosk()
    send(vosk, config(words=False), FRAME)
    hear(vosk, final("one"), ended(0.2))
    assert send(vosk, EOF) == [Send('{"text": "one"}'), Close(1000)]


def test_reset_is_answered_and_the_session_goes_on() -> None:
    """Replies to frames that came meanwhile follow it, so the order is that of the requests."""
    vosk = Vosk()
    send(vosk, config(words=False), FRAME)
    assert send(vosk, RESET) == [Flush()]
    assert send(vosk, FRAME, FRAME) == [Audio(FRAME), Audio(FRAME)]
    hear(vosk, final("one"))
    assert replies(*hear(vosk, flushed(0.2))) == [{"text": "one"}, {"partial": ""}, {"partial": ""}]
    assert replies(*send(vosk, FRAME)) == [{"partial": ""}]
    assert send(Vosk(), RESET) == [Send('{"text": ""}')]


def test_times_go_on_in_a_second_session() -> None:
    """The client's clock is the audio it sent, whatever the daemon calls a session."""
    vosk = Vosk()
    send(vosk, FRAME)
    hear(vosk, ended(0.2))
    assert isinstance(send(vosk, FRAME)[0], Begin)
    hear(vosk, final("one", 1.0))
    assert replies(*send(vosk, FRAME))[0]["result"][0]["start"] == pytest.approx(1.2)


def test_gap_is_told_in_the_next_reply() -> None:
    """Vosk has no word for lost audio, so the reply gets one more field."""
    vosk = Vosk()
    send(vosk, FRAME)
    hear(vosk, gap(1.0, 2.0, "deadline"))
    vosk.refused(0, "no_workers", 2.0, 3.0)
    assert replies(*send(vosk, FRAME, FRAME)) == [
        {"text": "", "gaps": [{"start": 1.0, "end": 2.0, "reason": "deadline"}]},
        {"text": "", "gaps": [{"start": 2.0, "end": 3.0, "reason": "no_workers"}]},
    ]


def test_alternatives_are_a_list_of_one() -> None:
    """Clients that ask for several texts read them from a list, the best first."""
    vosk = Vosk()
    send(vosk, config(max_alternatives=3, words=False), FRAME)
    hear(vosk, final("one", confidence=0.75))
    assert replies(*send(vosk, FRAME)) == [{"alternatives": [{"text": "one", "confidence": 0.75}]}]


def test_half_a_sample_waits_for_its_other_half() -> None:
    """A frame that ends within a sample is answered, and no byte is lost."""
    vosk = Vosk()
    commands = send(vosk, b"\1\2\3", b"\4", b"\5", b"")
    assert len(replies(*commands)) == 4
    assert b"".join(c.pcm for c in commands if isinstance(c, Audio)) == b"\1\2\3\4"


@pytest.mark.parametrize(
    "message",
    [
        "hello",
        "[]",
        '"config"',
        '{"config": 1}',
        "[" * 100_000,
        config(sample_rate="fast"),
        config(sample_rate=7999),
        config(sample_rate=192_001),
        '{"config": {"sample_rate": 1e999}}',
        '{"config": {"sample_rate": NaN}}',
        config(sample_rate=None),
        config(max_alternatives="x"),
    ],
    ids=lambda text: text[:40],
)
def test_bad_text_message_closes_with_a_reason(message: str) -> None:
    (close,) = send(Vosk(), message)
    assert isinstance(close, Close)
    assert close.code == 1003
    assert len(close.reason.encode()) <= 123  # what a close frame holds


def test_rate_stays_once_there_is_audio() -> None:
    """The same rate again is fine; another one is refused, not ignored."""
    vosk = Vosk()
    send(vosk, config(sample_rate=16_000), FRAME)
    assert send(vosk, config(sample_rate=16_000)) == []
    (close,) = send(vosk, config(sample_rate=8_000))
    assert close == Close(1003, "config: sample_rate is 16000 since the first audio, and stays so")


def test_rejected_audio_closes_with_the_daemons_words() -> None:
    vosk = Vosk()
    send(vosk, FRAME)
    assert hear(vosk, rejected(detail="this is an Ogg file")) == [Close(1003, "this is an Ogg file")]


STEPS = st.lists(st.sampled_from(["audio", "reset", "final", "partial", "flushed", "timeout"]), max_size=30)


@given(STEPS)
def test_every_request_has_one_reply_and_no_text_is_lost(steps: list[str]) -> None:
    """Whatever happens in whatever order: replies are as many as requests, and tell all finals in order."""
    vosk = Vosk()
    commands: list[Command] = []
    requests, finals = 1, 0  # the last request is eof
    for step in [*steps, "eof"]:
        if step in {"audio", "reset", "eof"}:
            requests += step != "eof"
            commands += send(vosk, {"audio": FRAME, "reset": RESET, "eof": EOF}[step])
        elif step == "final":
            commands += hear(vosk, final(str(finals)))
            finals += 1
        else:
            says = {"partial": partial("x"), "flushed": flushed(0.0), "timeout": ended()}[step]
            commands += hear(vosk, says)
    if not any(isinstance(command, Close) for command in commands):
        commands += hear(vosk, ended())
    told = replies(*commands)
    assert len(told) == requests
    assert " ".join(r["text"] for r in told if r.get("text")) == " ".join(str(n) for n in range(finals))
    assert commands[-1] == Close(1000)
