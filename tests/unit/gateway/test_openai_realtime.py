"""OpenAI Realtime: items with their text once and in order, deltas that join up to it, losses told as failures."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

import pytest
from daemon_says import ended, final, flushed, gap, partial, rejected, speech
from hypothesis import given
from hypothesis import strategies as st
from played_daemon import Talk

from transcriber.gateway.dialects.dialect import Audio, Begin, Close, Command, End, Flush, Send
from transcriber.gateway.dialects.openai_realtime import Realtime

TENTH = bytes(4800)  # of a second, at 24 kHz
COMMIT, CLEAR = '{"type": "input_audio_buffer.commit"}', '{"type": "input_audio_buffer.clear"}'
T = "conversation.item.input_audio_transcription"


def append(audio: bytes) -> str:
    return json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()})


def update(turn_detection: dict[str, Any] | None, **transcription: Any) -> str:
    audio = {"input": {"turn_detection": turn_detection, "transcription": transcription}}
    return json.dumps({"type": "session.update", "session": {"type": "transcription", "audio": audio}})


MANUAL, VAD = update(None), update({"type": "server_vad", "silence_duration_ms": 500})


def realtime(*messages: str, **options: Any) -> Realtime:
    dialect = Realtime("r1", **options)
    send(dialect, *messages)
    return dialect


def send(dialect: Realtime, *messages: str | bytes) -> list[Command]:
    return [command for message in messages for command in dialect.received(message)]


def hear(dialect: Realtime, *messages: dict[str, Any]) -> list[Command]:
    return [command for message in messages for command in dialect.heard(0, message)]


def events(commands: Iterable[Command], kind: str = "") -> list[dict[str, Any]]:
    """The events for the client whose type ends with `kind`."""
    sent = [json.loads(command.message) for command in commands if isinstance(command, Send)]
    return [event for event in sent if event["type"].endswith(kind)]


def kinds(commands: Iterable[Command]) -> list[str]:
    return [event["type"] for event in events(commands)]


def closed(text: str, start: float, why: str = "pause") -> dict[str, Any]:
    return {**final(text, start), "closed": why}


def test_session_is_created_and_updated_in_the_present_shape() -> None:
    """Each event has an id of its own."""
    dialect = Realtime("r1", model="whisper-1")
    commands = [*dialect.opened(), *send(dialect, update(None, language="de"))]
    created, updated = events(commands)
    assert (created["type"], updated["type"]) == ("session.created", "session.updated")
    assert created["session"]["audio"]["input"]["transcription"] == {"model": "whisper-1"}
    assert created["session"]["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert updated["session"]["audio"]["input"]["turn_detection"] is None
    assert updated["session"]["audio"]["input"]["transcription"]["language"] == "de"
    assert created["event_id"] != updated["event_id"]
    assert created["session"]["id"] == updated["session"]["id"] == "sess_r1"


def test_session_of_the_beta_is_answered_in_its_shape() -> None:
    """By header, or once the client uses its event or its flat fields; a nested update ends that."""
    flat = {"input_audio_format": "pcm16"}
    old = json.dumps({"type": "transcription_session.update", "session": flat})
    between = json.dumps({"type": "session.update", "session": flat})
    dialect = Realtime("r1", beta=True)
    (created,) = events(dialect.opened())
    assert (created["type"], created["session"]["input_audio_format"]) == ("transcription_session.created", "pcm16")
    assert kinds(send(realtime(), old, between)) == ["transcription_session.updated", "session.updated"]
    talk = Talk(realtime(old, json.dumps({"type": "session.update", "session": {"turn_detection": None}})))
    talk.send(append(TENTH), COMMIT)
    assert kinds(talk.got)[-2:] == ["input_audio_buffer.committed", "conversation.item.created"]
    talk.send(MANUAL, append(TENTH), COMMIT)
    assert kinds(talk.got)[-2:] == ["conversation.item.added", "conversation.item.done"]


def test_commit_gives_one_item_with_all_text_since_the_last() -> None:
    """Windows that pauses have closed join; deltas carry the id that the commit will name."""
    dialect = realtime(MANUAL)
    begin, audio = send(dialect, append(TENTH * 10))
    assert isinstance(begin, Begin)
    assert audio == Audio(TENTH * 10)
    heard = hear(dialect, partial("turn left ok", "turn left", 0.1), closed("turn left now", 0.1), closed("stop", 0.6))
    deltas = events(heard, ".delta")
    assert [event["delta"] for event in deltas] == ["turn left", " now", " stop"]
    *told, flush = send(dialect, COMMIT)
    assert flush == Flush(0)
    assert kinds(told) == ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
    committed, added, _ = events(told)
    assert committed["previous_item_id"] is added["previous_item_id"] is None
    commands = hear(dialect, closed("here", 0.8, "flush"), flushed(1.0))
    assert kinds(commands) == [f"{T}.delta", f"{T}.completed"]
    completed = events(commands)[-1]
    assert completed["transcript"] == "turn left now stop here"
    assert completed["usage"] == {"type": "duration", "seconds": 1.0}
    assert completed["languages"] == [{"code": "en"}]
    assert {event["item_id"] for event in [*deltas, completed, committed]} == {added["item"]["id"]}
    send(dialect, append(TENTH))
    assert events(send(dialect, COMMIT))[0]["previous_item_id"] == added["item"]["id"]


def test_commit_over_silence_completes_an_empty_item() -> None:
    """Nobody has spoken; the client still waits for its item."""
    dialect = realtime(MANUAL)
    send(dialect, append(TENTH), COMMIT)
    (completed,) = events(hear(dialect, flushed(0.1)))
    assert (completed["type"], completed["transcript"]) == (f"{T}.completed", "")


@pytest.mark.parametrize("mode", [MANUAL, VAD], ids=["manual", "vad"])
def test_commit_of_less_than_100_ms_is_an_error(mode: str) -> None:
    """With the client's id of the event; the audio stays in the buffer."""
    dialect = realtime(mode)
    commit = json.dumps({"type": "input_audio_buffer.commit", "event_id": "mine"})
    (error,) = events(send(dialect, append(bytes(4798)), commit))
    assert (error["type"], error["error"]["code"]) == ("error", "input_audio_buffer_commit_empty")
    assert error["error"]["event_id"] == "mine"
    assert events(send(dialect, append(bytes(2)), commit), "committed")


def test_commits_that_follow_each_other_are_items_of_their_own() -> None:
    """Each gets the text of its own stretch, in the order of the commits."""
    dialect = realtime(MANUAL)
    send(dialect, append(TENTH * 5), COMMIT, append(TENTH * 5), COMMIT)
    commands = hear(dialect, closed("one", 0.1, "flush"), flushed(0.5), closed("two", 0.6, "flush"), flushed(1.0))
    assert [event["transcript"] for event in events(commands, ".completed")] == ["one", "two"]


def test_delta_is_only_what_will_not_change() -> None:
    """A final that says something else adds no delta: a client would join both texts."""
    dialect = realtime(MANUAL)
    send(dialect, append(TENTH * 10))
    commands = hear(
        dialect, partial("turn le", "", 0.1), partial("turn left", "turn", 0.1), partial("turn", "turn", 0.1),
        closed("burn left", 0.1), closed("now", 0.6),
    )  # fmt: skip
    assert [event["delta"] for event in events(commands, ".delta")] == ["turn", " now"]
    send(dialect, COMMIT)
    assert events(hear(dialect, flushed(1.0)))[-1]["transcript"] == "burn left now"


def test_delta_of_a_window_waits_for_the_text_before_it() -> None:
    """A window that is still open may be decoded while an earlier one waits."""
    dialect = realtime(VAD)
    send(dialect, append(TENTH * 90))
    hear(dialect, speech(0.0), speech(0.0, 5.0, "length"), speech(5.0))
    assert hear(dialect, partial("three", "three", 5.0)) == []
    commands = hear(dialect, closed("one two", 0.0, "length") | {"end": 5.0}, partial("three", "three", 5.0))
    assert [event["delta"] for event in events(commands, ".delta")] == ["one two", " three"]


def test_deltas_go_on_after_a_window_that_is_lost() -> None:
    """What was told of it cannot be taken back; `completed` has the rest."""
    dialect = realtime(MANUAL)
    send(dialect, append(TENTH * 20))
    commands = hear(dialect, partial("one", "one", 0.1), gap(0.1, 0.9), partial("two", "two", 1.0), closed("two", 1.0))
    assert [event["delta"] for event in events(commands, ".delta")] == ["one", " two"]
    send(dialect, COMMIT)
    assert events(hear(dialect, flushed(2.0)), ".completed")[0]["transcript"] == "two"


def test_loss_is_told_of_its_own_item_however_early_it_comes() -> None:
    """A window that finds no place is lost at once, while the text of an earlier item is still awaited."""
    dialect = realtime(MANUAL)
    send(dialect, append(TENTH * 5), COMMIT, append(TENTH * 5), COMMIT)
    commands = hear(dialect, gap(0.49995, 1.0), closed("one", 0.1, "flush"), flushed(0.5), flushed(1.0))
    assert kinds(commands) == [f"{T}.delta", f"{T}.completed", f"{T}.failed"]


def test_speech_is_an_item_from_its_start_to_its_pause() -> None:
    """Started, stopped, committed, and complete with its text; the end is told before the text is known."""
    dialect = realtime(VAD)
    send(dialect, append(TENTH * 30))
    commands = hear(dialect, speech(0.5))
    (started,) = events(commands)
    assert (started["type"], started["audio_start_ms"]) == ("input_audio_buffer.speech_started", 500)
    commands = hear(dialect, partial("turn left", "turn", 0.5), speech(0.5, 1.25))
    assert kinds(commands)[1:] == [
        "input_audio_buffer.speech_stopped", "input_audio_buffer.committed", "conversation.item.added",
        "conversation.item.done",
    ]  # fmt: skip
    assert events(commands)[1]["audio_end_ms"] == 1250
    commands = hear(dialect, closed("turn left", 0.5))
    assert kinds(commands) == [f"{T}.delta", f"{T}.completed"]
    assert events(commands)[1]["transcript"] == "turn left"
    assert events(commands)[1]["usage"]["seconds"] == 0.75
    assert {event["item_id"] for event in events(commands)} == {started["item_id"]}


def test_speech_that_is_cut_by_length_is_one_item() -> None:
    """Its windows join; it stops where the last one does."""
    dialect = realtime(VAD)
    send(dialect, append(TENTH * 90))
    commands = hear(dialect, speech(0.0), speech(0.0, 5.0, "length"), speech(5.0), closed("one", 0.0, "length"))
    assert kinds(commands) == ["input_audio_buffer.speech_started", f"{T}.delta"]
    commands = hear(dialect, speech(5.0, 6.0), closed("two", 5.0))
    assert events(commands, "stopped")[0]["audio_end_ms"] == 6000
    assert events(commands, ".completed")[0]["transcript"] == "one two"


def test_speech_that_ends_where_it_was_cut_stops_by_audio_time() -> None:
    """No other window opens, so that nothing says that it is over."""
    dialect = realtime(VAD)
    commands: list[Command] = []
    for second in range(4):
        commands += dialect.tick(float(second))
        commands += send(dialect, *[append(TENTH)] * 10)
        if second == 2:
            commands += hear(dialect, speech(0.0), speech(0.0, 2.5, "length"), closed("one", 0.0, "length"))
    (stopped,) = events(commands, "speech_stopped")
    assert stopped["audio_end_ms"] == 2500
    assert events(commands, ".completed")[0]["transcript"] == "one"


def test_next_speech_stops_one_that_was_cut_before_it() -> None:
    """Also when all audio came at once, so that audio time tells nothing."""
    dialect = realtime(VAD)
    send(dialect, append(TENTH * 90))
    commands = hear(dialect, speech(0.0), speech(0.0, 5.0, "length"), closed("one", 0.0, "length"), speech(7.0))
    assert [kind.rpartition(".")[2] for kind in kinds(commands)] == [
        "speech_started", "delta", "speech_stopped", "committed", "added", "done", "completed", "speech_started",
    ]  # fmt: skip


def test_commit_during_speech_ends_the_item_there() -> None:
    """Without `speech_stopped`, as it has not; what follows is another item."""
    dialect = realtime(VAD)
    send(dialect, append(TENTH * 10))
    hear(dialect, speech(0.2))
    assert send(dialect, COMMIT)[-1] == Flush(0)
    commands = hear(dialect, speech(0.2, 1.0, "flush"), closed("one", 0.2, "flush"), flushed(1.0))
    assert kinds(commands) == [f"{T}.delta", f"{T}.completed"]
    send(dialect, append(TENTH * 10))
    assert events(hear(dialect, speech(1.5)), "speech_started")


def test_daemon_without_speech_events_still_gives_items() -> None:
    """Each final is then all that is known."""
    dialect = realtime(VAD)
    send(dialect, append(TENTH * 20))
    commands = hear(dialect, final("one", 0.5))
    assert [kind.rpartition(".")[2] for kind in kinds(commands)] == [
        "speech_started", "delta", "speech_stopped", "committed", "added", "done", "completed",
    ]  # fmt: skip


def test_item_of_which_everything_is_lost_fails() -> None:
    """With the reason as its code; the connection goes on, and there is no `error`."""
    dialect = realtime(VAD)
    send(dialect, append(TENTH * 20))
    commands = hear(dialect, speech(0.2), speech(0.2, 0.9), gap(0.2, 0.9, "queue_full"))
    failed = events(commands)[-1]
    assert (failed["type"], failed["error"]["code"]) == (f"{T}.failed", "queue_full")
    assert "0.20 s to 0.90 s" in failed["error"]["message"]
    assert failed["item_id"] == events(commands)[0]["item_id"]


@pytest.mark.parametrize("by", ["daemon", "gateway"])
def test_item_that_is_partly_lost_keeps_its_text(by: str) -> None:
    """The lost part fails as an item of its own."""
    dialect = realtime(MANUAL)
    send(dialect, append(TENTH * 10), COMMIT)
    hear(dialect, closed("one", 0.1))
    told = hear(dialect, gap(0.5, 1.0)) if by == "daemon" else list(dialect.refused(0, "queue_full", 0.5, 1.0))
    assert told == []
    commands = hear(dialect, flushed(1.0))
    assert kinds(commands) == [f"{T}.completed", "conversation.item.added", "conversation.item.done", f"{T}.failed"]
    completed, added, _, failed = events(commands)
    assert completed["transcript"] == "one"
    assert added["previous_item_id"] == completed["item_id"]
    assert failed["item_id"] == added["item"]["id"] != completed["item_id"]


def test_loss_between_items_is_an_item_that_fails() -> None:
    dialect = realtime(VAD)
    send(dialect, append(TENTH * 20))
    assert kinds(hear(dialect, gap(0.2, 0.9, "lost_upstream")))[-1] == f"{T}.failed"


def test_clear_drops_the_audio_and_its_text() -> None:
    """What was committed before stays; what comes after is another item."""
    dialect = realtime(MANUAL)
    send(dialect, append(TENTH * 5), COMMIT, append(TENTH * 5))
    flush, cleared = send(dialect, CLEAR)
    assert flush == Flush(0)
    assert kinds([cleared]) == ["input_audio_buffer.cleared"]
    commands = hear(dialect, closed("one", 0.1, "flush"), flushed(0.5), closed("two", 0.6, "flush"), flushed(1.0))
    assert [event["transcript"] for event in events(commands, ".completed")] == ["one"]
    assert kinds(commands) == [f"{T}.delta", f"{T}.completed"]
    assert events(send(dialect, COMMIT))[0]["error"]["code"] == "input_audio_buffer_commit_empty"
    send(dialect, append(TENTH * 5), COMMIT)
    assert events(hear(dialect, closed("three", 1.1, "flush"), flushed(1.5)))[-1]["transcript"] == "three"


def test_clear_of_an_empty_buffer_is_answered() -> None:
    assert kinds(send(realtime(MANUAL), CLEAR)) == ["input_audio_buffer.cleared"]


def test_change_of_language_begins_another_session() -> None:
    """The old one settles first; times and the buffer go on."""
    dialect = realtime(MANUAL)
    send(dialect, append(TENTH * 5))
    assert send(dialect, update(None, language="de"))[0] == End(0)
    begin, _ = send(dialect, append(TENTH * 5))
    assert begin.hearing.language == "de"
    hear(dialect, closed("one", 0.1, "end"), ended(0.5))
    send(dialect, COMMIT)
    commands = hear(dialect, closed("two", 0.1, "flush"), flushed(0.5))
    assert events(commands, ".completed")[0]["transcript"] == "one two"
    assert events(commands, ".completed")[0]["usage"]["seconds"] == 1.0


def test_commit_while_a_session_ends_is_complete_at_its_end() -> None:
    """No flush is asked of a session that ends anyway."""
    dialect = realtime(MANUAL)
    send(dialect, append(TENTH * 5), update(None, language="de"))
    assert Flush(0) not in send(dialect, COMMIT)
    assert events(hear(dialect, closed("one", 0.1, "end"), ended(0.5)))[-1]["transcript"] == "one"


def test_same_configuration_again_changes_no_session() -> None:
    dialect = realtime(MANUAL)
    send(dialect, append(TENTH))
    assert kinds(send(dialect, MANUAL)) == ["session.updated"]
    assert not [command for command in send(dialect, MANUAL, append(TENTH)) if isinstance(command, Begin | End)]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("{", "type"),
        ("[]", "type"),
        (b"\x00\x01", "type"),
        ('{"type": "response.create"}', "type"),
        ('{"type": "session.update"}', "type"),
        ('{"type": "session.update", "session": {"type": "realtime"}}', "session.type"),
        ('{"type": "input_audio_buffer.append"}', "audio"),
        ('{"type": "input_audio_buffer.append", "audio": 7}', "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "AAA"}', "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "AA=A"}', "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "\\u00e4\\u00e4\\u00e4\\u00e4"}', "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "AAA$"}', "audio"),
    ],
)
def test_broken_input_is_an_error_and_the_connection_goes_on(message: str | bytes, param: str) -> None:
    """It names the field."""
    dialect = realtime(MANUAL)
    (error,) = events(send(dialect, message))
    assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
    assert error["error"]["param"] == param
    assert send(dialect, append(TENTH))


def test_rejected_audio_is_an_error_once() -> None:
    """All of a file's messages are rejected for the same reason. A full daemon is no fault of the audio."""
    dialect = realtime(MANUAL)
    send(dialect, append(TENTH))
    (error,) = events(hear(dialect, rejected(), rejected()))
    assert (error["error"]["code"], error["error"]["message"]) == ("container", "this is an Ogg file")
    assert hear(dialect, rejected("streams", "too many")) == [Close(1013, "no worker takes another stream")]


SPEECH = ["speak", "pause", "length", "gap"]
ACTIONS = st.sampled_from([*SPEECH, "audio", "odd", "commit", "german", "english", "deliver"])
LANGUAGES = {"german": "de", "english": "en"}


@given(st.lists(ACTIONS, max_size=40), st.booleans())
def test_client_gets_every_text_once_and_in_order(actions: list[str], manual: bool) -> None:
    """In items that are committed in order, each with one end, whatever is said and asked when."""
    detection = None if manual else {"type": "server_vad"}
    talk = Talk(realtime())
    talk.send(update(detection), append(TENTH))
    for number, action in enumerate(actions):
        if action in SPEECH:
            talk.speech(action, 0, number % 4)
        elif action == "deliver":
            talk.deliver()
        elif action == "commit":
            talk.send(COMMIT)
        elif action in LANGUAGES:
            talk.send(update(detection, language=LANGUAGES[action]))
        else:
            talk.send(append(TENTH + bytes(action == "odd")))
        talk.tick()
    talk.send(append(TENTH), COMMIT)
    talk.deliver()
    check_items(talk)


def check_items(talk: Talk) -> None:
    told = events(talk.got)
    ends = [event for event in told if event["type"] in {f"{T}.completed", f"{T}.failed"}]
    texts = [event["transcript"] for event in ends if event["type"] == f"{T}.completed"]
    assert " ".join(filter(None, texts)) == talk.daemon.text()
    added = [event["item"]["id"] for event in told if event["type"] == "conversation.item.added"]
    previous = [event["previous_item_id"] for event in told if event["type"] == "conversation.item.added"]
    assert previous == [None, *added[:-1]]
    assert sorted(event["item_id"] for event in ends) == sorted(added)
    for event in ends:
        deltas = [one["delta"] for one in told if one["type"] == f"{T}.delta" and one["item_id"] == event["item_id"]]
        heard = [word for word in "".join(deltas).split(" ") if word not in talk.daemon.lost_words]
        assert " ".join(heard) == event.get("transcript", "")
    lost = sum(event["error"]["message"].count("queue_full") for event in ends if event["type"] == f"{T}.failed")
    assert lost == len(talk.daemon.lost.get(0, []))
    errors = {event["error"]["code"] for event in told if event["type"] == "error"}
    assert errors <= {"input_audio_buffer_commit_empty"}
