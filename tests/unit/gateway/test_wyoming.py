"""Wyoming's protocol: each audio-stop is answered by a transcript, at worst an empty one."""

from __future__ import annotations

from typing import Any

import pytest
from daemon_says import ended, final, gap, partial, rejected
from hypothesis import given
from hypothesis import strategies as st

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.languages import WHISPER
from transcriber.gateway.dialects.dialect import Audio, Begin, Close, Command, End, Send
from transcriber.gateway.dialects.wyoming import Program, Wyoming
from transcriber.gateway.dialects.wyoming_events import Event, Events, encode

SOUND = {"rate": 16_000, "width": 2, "channels": 1}
PCM = bytes(3200)
START, STOP = Event("audio-start", SOUND), Event("audio-stop")
CHUNK = Event("audio-chunk", SOUND, PCM)


@pytest.fixture
def wyoming() -> Wyoming:
    return Wyoming(lambda: Program("1.0", {"base.en": False, "large": True}))


def send(wyoming: Wyoming, *events: Event) -> list[Command]:
    return [command for event in events for command in wyoming.received(encode(event))]


def hear(wyoming: Wyoming, *messages: dict[str, Any]) -> list[Command]:
    return [command for message in messages for command in wyoming.heard(0, message)]


def told(*commands: Command) -> list[tuple[str, Any]]:
    sent = b"".join(c.message for c in commands if isinstance(c, Send) and isinstance(c.message, bytes))
    return [(event.type, event.data) for event in Events(2**20).add(sent)]


def test_describe_names_the_models_at_work(wyoming: Wyoming) -> None:
    """Home Assistant offers the languages of the installed models, and needs to say itself when a command ends."""
    ((kind, data),) = told(*send(wyoming, Event("describe")))
    (service,) = data["asr"]
    assert kind == "info"
    assert [(model["name"], model["languages"][:2]) for model in service["models"]] == [
        ("base.en", ["en"]),
        ("large", ["en", "zh"]),
    ]
    assert all(model["installed"] for model in service["models"])
    assert service["version"] == "1.0"
    assert (service["supports_transcript_streaming"], service["requires_external_vad"]) == (True, True)


def test_describe_without_workers_names_all_languages() -> None:
    """Home Assistant asks once, when it is set up, and would offer no language for ever."""
    ((_, data),) = told(*send(Wyoming(lambda: Program("1.0")), Event("describe")))
    (model,) = data["asr"][0]["models"]
    assert (model["name"], len(model["languages"])) == ("default", len(WHISPER))


def test_utterance_becomes_one_transcript(wyoming: Wyoming) -> None:
    """Its windows are joined; the language is what was heard."""
    names = {"transcript_names": ["Alma"], "transcript_terms": ["gate"]}
    asked = Event("transcribe", {"name": "large", "language": "de-DE", **names})
    begin, audio = send(wyoming, asked, START, CHUNK)
    assert isinstance(begin, Begin)
    assert begin.hearing.format == AudioFormat(Encoding.S16LE, 16_000, 1)
    assert (begin.hearing.model, begin.hearing.language, begin.hearing.prompt) == ("large", "de", "Alma, gate")
    assert audio == Audio(PCM)
    assert send(wyoming, STOP) == [End()]
    assert told(*hear(wyoming, final("turn left"), final("", 1.0), final("now", 2.0), ended(0.1))) == [
        ("transcript-start", {"language": "de"}),
        ("transcript-chunk", {"text": "turn left"}),
        ("transcript-chunk", {"text": " now"}),
        ("transcript", {"text": "turn left now", "language": "en"}),
        ("transcript-stop", {}),
    ]


def test_stable_text_is_told_while_the_user_speaks(wyoming: Wyoming) -> None:
    """Chunks only add, so they carry what will not change; joined they are the transcript."""
    send(wyoming, START, CHUNK)
    spoken = [
        partial("turn"),
        partial("turn le", "turn"),
        partial("turn left", "turn"),
        final("turn left"),
        final("on"),
    ]
    chunks = [data["text"] for kind, data in told(*hear(wyoming, *spoken)) if kind == "transcript-chunk"]
    assert chunks == ["turn", " left", " on"]


def test_final_that_contradicts_stable_text_wins(wyoming: Wyoming) -> None:
    """What was told cannot be taken back, but the transcript is right."""
    send(wyoming, START, CHUNK, STOP)
    answer = told(*hear(wyoming, partial("turn left", "turn"), final("burn left"), final("now"), ended()))
    assert [data["text"] for kind, data in answer if kind == "transcript-chunk"] == ["turn", " now"]
    assert ("transcript", {"text": "burn left now", "language": "en"}) in answer


@pytest.mark.parametrize("events", [[STOP], [START, STOP], [START, Event("audio-chunk", SOUND), STOP]])
def test_nothing_said_is_answered_at_once(wyoming: Wyoming, events: list[Event]) -> None:
    """Home Assistant would wait for ever."""
    answer = told(*send(wyoming, *events))
    assert answer == [("transcript-start", {}), ("transcript", {"text": ""}), ("transcript-stop", {})]


def test_silence_is_answered_with_an_empty_transcript(wyoming: Wyoming) -> None:
    send(wyoming, START, CHUNK, STOP)
    assert ("transcript", {"text": ""}) in told(*hear(wyoming, ended(0.1)))


def test_lost_audio_is_an_error_only_without_any_text(wyoming: Wyoming) -> None:
    """A client may give up on an error, so a text with a gap is no error: the gap is in the transcript."""
    send(wyoming, START, CHUNK, STOP)
    kinds = told(*hear(wyoming, gap(0.0, 1.0, "deadline"), ended()))
    assert kinds[0] == ("error", {"text": "the audio was not transcribed: deadline", "code": "deadline"})
    lost = [{"start": 0.0, "end": 1.0, "reason": "deadline"}]
    assert ("transcript", {"text": "", "gaps": lost}) in kinds
    send(wyoming, START, CHUNK, STOP)
    wyoming.refused(0, "no_workers", 1.0, 2.0)
    kinds = told(*hear(wyoming, final("one"), ended()))
    lost = [{"start": 1.0, "end": 2.0, "reason": "no_workers"}]
    assert ("transcript", {"text": "one", "language": "en", "gaps": lost}) in kinds
    assert "error" not in dict(kinds)


@pytest.mark.parametrize(
    "sound",
    [{**SOUND, "width": 4}, {**SOUND, "rate": 4000}, {**SOUND, "channels": 9}, {**SOUND, "rate": "16000"}, {}],
)
def test_bad_format_is_an_error_and_an_empty_transcript(wyoming: Wyoming, sound: dict[str, Any]) -> None:
    """Told once, at audio-start or at the first chunk that differs."""
    bad = Event("audio-start", sound), Event("audio-chunk", sound, PCM), STOP
    kinds = [kind for kind, _ in told(*send(wyoming, *bad))]
    assert kinds == ["error", "transcript-start", "transcript", "transcript-stop"]
    (message,) = told(*send(wyoming, START, Event("audio-chunk", {**SOUND, "rate": 8_000}, PCM), CHUNK))
    assert message[1] == {"text": "the format of audio-chunk differs from that of audio-start", "code": "format"}


def test_rejected_audio_is_an_error_told_once(wyoming: Wyoming) -> None:
    send(wyoming, START, CHUNK)
    said = told(*hear(wyoming, rejected("container", "this is an Ogg file"), rejected()))
    assert said == [("error", {"text": "this is an Ogg file", "code": "container"})]


def test_utterances_in_a_row_get_their_own_transcripts(wyoming: Wyoming) -> None:
    """Even when the next one begins before the one before is settled."""
    commands = send(wyoming, START, CHUNK, STOP, START, CHUNK, STOP, STOP)
    assert [type(command) for command in commands] == [Begin, Audio, End, Begin, Audio, End]
    first = dict(told(*hear(wyoming, final("one"), ended())))
    second = told(*hear(wyoming, final("two"), ended()))
    assert first["transcript"]["text"] == "one"
    assert [data["text"] for kind, data in second if kind == "transcript"] == ["two", ""]


def test_abandoned_utterance_gets_no_transcript(wyoming: Wyoming) -> None:
    """Its client began another one, and would take the answer for that."""
    commands = send(wyoming, START, CHUNK, START, CHUNK, STOP)
    assert [type(command) for command in commands] == [Begin, Audio, End, Begin, Audio, End]
    assert hear(wyoming, final("one"), ended()) == []
    assert dict(told(*hear(wyoming, final("two"), ended())))["transcript"]["text"] == "two"


def test_session_that_timed_out_goes_on_with_the_next_audio(wyoming: Wyoming) -> None:
    send(wyoming, START, CHUNK)
    hear(wyoming, final("one"), ended())
    assert [type(command) for command in send(wyoming, CHUNK, STOP)] == [Begin, Audio, End]
    assert dict(told(*hear(wyoming, final("two"), ended())))["transcript"]["text"] == "one two"


def test_ping_is_answered_and_unknown_events_are_not(wyoming: Wyoming) -> None:
    unknown = Event("select-program", {"name": "x"})
    assert told(*send(wyoming, Event("ping", {"text": "x"}), unknown)) == [("pong", {"text": "x"})]


def test_half_a_surrogate_is_replaced(wyoming: Wyoming) -> None:
    """JSON can spell it, and neither our answers nor a header of NATS can hold it."""
    ping = b'{"type": "ping", "data": {"text": "a\\ud800"}}\n'
    assert told(*wyoming.received(ping)) == [("pong", {"text": "a?"})]
    asked = b'{"type": "transcribe", "data": {"transcript_names": ["a\\ud800"]}}\n'
    begin, *_ = [*wyoming.received(asked), *send(wyoming, START, CHUNK)]
    assert isinstance(begin, Begin)
    assert begin.hearing.prompt == "a?"


def test_chunks_without_audio_start_begin_an_utterance(wyoming: Wyoming) -> None:
    assert [type(command) for command in send(wyoming, CHUNK, CHUNK, STOP)] == [Begin, Audio, Audio, End]


@pytest.mark.parametrize(
    "data",
    [
        b"hello\n",
        b"[]\n",
        b"{}\n",
        b'{"type": "x", "data": 1}\n',
        b'{"type": "x", "data_length": -1}\n',
        b'{"type": "x", "data_length": "1"}\n',
        b'{"type": "x", "payload_length": 1048577}\n',
        b'{"type": "x", "payload_length": true}\n',
        b'{"type": "x", "data_length": 2}\n[]',
        b"x" * 70_000,
        b"[" * 60_000 + b"\n",
    ],
    ids=lambda data: data[:40],
)
def test_bytes_that_are_no_event_end_the_connection(wyoming: Wyoming, data: bytes) -> None:
    """With a reason: what follows them cannot be read either."""
    *_, close = commands = list(wyoming.received(data))
    assert isinstance(close, Close)
    assert told(*commands) == [("error", {"text": close.reason, "code": "malformed"})]


def test_names_beyond_what_whisper_reads_are_left_out(wyoming: Wyoming) -> None:
    """Home Assistant may send the names of a whole house. None is cut in two."""
    asked = Event("transcribe", {"transcript_names": ["lamp" * 10] * 100, "transcript_terms": "no list"})
    begin, _ = send(wyoming, asked, START, CHUNK)
    assert isinstance(begin, Begin)
    assert begin.hearing.prompt == ", ".join(["lamp" * 10] * 21)


def test_last_words_answer_only_what_is_waited_for(wyoming: Wyoming) -> None:
    """Half a command would be another command, so an utterance that goes on gets none."""
    send(wyoming, START, CHUNK, STOP, START, CHUNK)
    hear(wyoming, final("one"))
    said = list(Events(2**20).add(wyoming.last_words("no_workers")))
    assert [event.type for event in said] == ["error", "transcript", "transcript-stop"]
    assert said[0].data == {"text": "no_workers", "code": "closed"}
    assert said[1].data["text"] == "one"
    assert wyoming.last_words("again") == b""


@given(st.data())
def test_events_may_be_cut_anywhere(data: st.DataObject) -> None:
    """The reader gives the same events for any cut, and writes what it reads."""
    events = [START, CHUNK, Event("transcribe", {"language": "dé"}), STOP, Event("audio-chunk", {}, b"\n\n{}")]
    text = b"".join(map(encode, events))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    reader = Events(2**20)
    parts = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert [event for part in parts for event in reader.add(part)] == events


def test_event_has_both_kinds_of_data() -> None:
    """Data may be in the line, after it, or in both; what comes after counts."""
    line = b'{"type": "transcribe", "data": {"a": 1, "b": 1}, "data_length": 8}\n{"b": 2}'
    assert [event.data for event in Events(100).add(line)] == [{"a": 1, "b": 2}]
