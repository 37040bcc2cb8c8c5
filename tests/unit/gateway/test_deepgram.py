"""Deepgram's live endpoint: every word once, every Finalize answered, every loss told, and a goodbye in order."""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from daemon_says import ended, final, flushed, gap, partial, rejected, speech
from hypothesis import given
from hypothesis import strategies as st
from played_daemon import Talk

from transcriber.audio.segmenter import _NOTICED_EAGERLY, ONSET_OF
from transcriber.audio.segmenter import PRE_ROLL as PRE_ROLL_FRAMES
from transcriber.audio.vad import FRAME
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.gateway.dialects.deepgram import Deepgram
from transcriber.gateway.dialects.deepgram_query import Listening, listening
from transcriber.gateway.dialects.dialect import Audio, Begin, Close, Command, End, Flush, Keepalive, Send
from transcriber.gateway.dialects.pace import NOTICE, PRE_ROLL

MONO = AudioFormat(Encoding.S16LE, 16_000, 1)
SECOND = bytes(32_000)
KEEP_ALIVE, FINALIZE, CLOSE_STREAM = (json.dumps({"type": kind}) for kind in ("KeepAlive", "Finalize", "CloseStream"))


def deepgram(**asked: Any) -> Deepgram:
    return Deepgram(Listening(**{"format": MONO, "interim": True, **asked}), "id-1", "2026-11-30T00:00:00.000Z")


def send(dialect: Deepgram, *messages: str | bytes) -> list[Command]:
    return [command for message in messages for command in dialect.received(message)]


def hear(dialect: Deepgram, *messages: dict[str, Any], channel: int = 0) -> list[Command]:
    return [command for message in messages for command in dialect.heard(channel, message)]


def told(commands: Iterable[Command], kind: str | None = None) -> list[dict[str, Any]]:
    """The JSON messages to the client, of one type."""
    sent = [json.loads(command.message) for command in commands if isinstance(command, Send)]
    return [message for message in sent if kind is None or message["type"] == kind]


def transcript(result: dict[str, Any]) -> str:
    return str(result["channel"]["alternatives"][0]["transcript"])


def paused(text: str, start: float = 0.0) -> dict[str, Any]:
    return {**final(text, start), "closed": "pause"}


def test_constants_of_the_pace_are_those_of_the_segmenter() -> None:
    """When windows begin and are noticed is decided there."""
    frame = FRAME / 16_000
    assert pytest.approx(PRE_ROLL_FRAMES * frame) == PRE_ROLL
    assert pytest.approx((ONSET_OF + _NOTICED_EAGERLY + 1) * frame + 0.06) == NOTICE


def test_session_begins_with_the_first_audio() -> None:
    """An idle connection costs the daemon nothing; half a sample waits for its other half."""
    dialect = deepgram()
    assert list(dialect.opened()) == send(dialect, KEEP_ALIVE) == []
    begin, audio = send(dialect, b"\x01\x02\x03")
    assert begin == Begin(Listening(format=MONO, interim=True).hearing(MONO))
    assert audio == Audio(b"\x01\x02")
    assert send(dialect, b"\x04") == [Audio(b"\x03\x04")]
    assert send(dialect, KEEP_ALIVE) == [Keepalive(0)]


def test_final_is_a_result_with_words_and_their_times() -> None:
    """Confidence and times are the daemon's; `word` is bare, `punctuated_word` as it was recognised."""
    dialect = deepgram()
    send(dialect, SECOND)
    (result,) = told(hear(dialect, {**final("Turn left, O'Neill!", 1.5, confidence=0.5), "closed": "pause"}))
    assert result["channel_index"] == [0, 1]
    assert (result["start"], result["duration"]) == (1.5, 0.3)
    assert (result["is_final"], result["speech_final"], result["from_finalize"]) == (True, True, False)
    alternative = result["channel"]["alternatives"][0]
    assert (alternative["transcript"], alternative["confidence"]) == ("Turn left, O'Neill!", 0.5)
    assert [word["word"] for word in alternative["words"]] == ["turn", "left", "o'neill"]
    assert alternative["words"][1] == {
        "word": "left", "start": 1.6, "end": 1.7, "confidence": 0.5, "punctuated_word": "left,",
    }  # fmt: skip
    assert result["metadata"]["request_id"] == "id-1"
    assert result["metadata"]["model_info"] == {"name": "m", "version": "", "arch": "whisper"}


@pytest.mark.parametrize(
    ("closed", "endpointing", "expected"),
    [("pause", True, True), ("pause", False, False), ("length", True, False), ("flush", True, False)],
)
def test_speech_final_tells_a_pause(closed: str, endpointing: bool, expected: bool) -> None:
    """Only a pause, and only with endpointing."""
    dialect = deepgram(speech_final=endpointing)
    send(dialect, SECOND)
    (result,) = told(hear(dialect, {**final("left"), "closed": closed}))
    assert result["speech_final"] is expected


def test_partial_is_a_result_that_may_be_dropped() -> None:
    """Where interim results are asked for; else there is none."""
    dialect, silent = deepgram(), deepgram(interim=False)
    send(dialect, SECOND)
    send(silent, SECOND)
    (command,) = hear(dialect, partial("turn left", "turn"))
    assert isinstance(command, Send)
    assert command.optional
    (result,) = told([command])
    assert (transcript(result), result["is_final"], result["speech_final"]) == ("turn left", False, False)
    assert hear(silent, partial("turn left", "turn")) == []


def test_finalize_flags_the_text_that_it_brings() -> None:
    """The window that the flush has closed; `flushed` then adds nothing."""
    dialect = deepgram()
    assert send(dialect, SECOND, FINALIZE)[-1] == Flush(0)
    commands = hear(dialect, {**final("left"), "closed": "flush"}, flushed(1.0))
    (result,) = told(commands, "Results")
    assert (transcript(result), result["from_finalize"], result["is_final"]) == ("left", True, True)


def test_finalize_over_silence_is_answered_by_an_empty_result() -> None:
    """Also before the first audio, and after a window that a pause has closed."""
    dialect = deepgram()
    (first,) = told(send(dialect, FINALIZE), "Results")
    send(dialect, SECOND, FINALIZE)
    text, empty = told(hear(dialect, paused("left"), flushed(1.0)), "Results")
    assert (text["from_finalize"], empty["from_finalize"]) == (False, True)
    for result, at in ((first, 0.0), (empty, 1.0)):
        assert (transcript(result), result["start"], result["duration"]) == ("", at, 0.0)


def test_finalize_flags_one_result_only() -> None:
    """Also if two windows were closed before it is settled."""
    dialect = deepgram()
    send(dialect, SECOND, FINALIZE)
    flush = {"closed": "flush"}
    commands = hear(dialect, final("one") | flush, final("two", 0.5) | flush, flushed(1.0), final("three", 1.2) | flush)
    assert [result["from_finalize"] for result in told(commands)] == [True, False, False]


def test_finalize_that_no_flush_answers_is_answered_at_the_end() -> None:
    """The session may end first."""
    dialect = deepgram()
    send(dialect, SECOND, FINALIZE, FINALIZE)
    assert [result["from_finalize"] for result in told(hear(dialect, ended(1.0)))] == [True, True]


def test_finalize_of_a_channel_that_is_none_is_an_error() -> None:
    dialect = deepgram()
    (error,) = told(send(dialect, '{"type": "Finalize", "channel": 1}'))
    assert (error["type"], "channel=1" in error["description"]) == ("Error", True)


def test_close_stream_ends_with_metadata() -> None:
    """The last result, then the digest and length of all audio, then code 1000."""
    dialect = deepgram()
    assert send(dialect, SECOND, CLOSE_STREAM)[-1] == End(0)
    assert send(dialect, SECOND, FINALIZE, KEEP_ALIVE, "{") == []
    commands = hear(dialect, {**final("left"), "closed": "end"}, ended(1.0))
    result, metadata = told(commands)
    assert transcript(result) == "left"
    assert (metadata["type"], metadata["duration"], metadata["channels"]) == ("Metadata", 1.0, 1)
    assert metadata["sha256"] == hashlib.sha256(SECOND).hexdigest()
    assert (metadata["request_id"], metadata["created"]) == ("id-1", "2026-11-30T00:00:00.000Z")
    assert commands[-1] == Close(1000)


def test_close_stream_before_audio_closes_at_once() -> None:
    metadata, close = send(deepgram(), CLOSE_STREAM)
    assert told([metadata])[0]["duration"] == 0.0
    assert close == Close(1000)


def test_loss_is_an_empty_result_with_its_reason() -> None:
    """What the daemon could not do, and what the gateway could not."""
    dialect = deepgram()
    send(dialect, SECOND)
    for commands in (hear(dialect, gap(0.25, 1.0)), dialect.refused(0, "queue_full", 0.25, 1.0)):
        (result,) = told(commands)
        assert (transcript(result), result["is_final"], result["speech_final"]) == ("", True, False)
        assert (result["start"], result["duration"], result["metadata"]["gap"]) == (0.25, 0.75, "queue_full")


def test_channels_are_heard_apart() -> None:
    """A session for each, with every other sample; results tell the channel and how many there are."""
    stereo = AudioFormat(Encoding.S16LE, 16_000, 2)
    dialect = deepgram(format=stereo, split=True)
    commands = send(dialect, struct.pack("<4h", 1, -1, 2, -2) + b"\x03", b"\x00" + struct.pack("<h", -3))
    heard = {
        channel: b"".join(c.pcm for c in commands if c == Audio(getattr(c, "pcm", b""), channel)) for channel in (0, 1)
    }
    assert heard == {0: struct.pack("<3h", 1, 2, 3), 1: struct.pack("<3h", -1, -2, -3)}
    assert [c.hearing.format for c in commands if isinstance(c, Begin)] == [MONO, MONO]
    (result,) = told(hear(dialect, paused("left"), channel=1))
    assert result["channel_index"] == [1, 2]
    assert send(dialect, '{"type": "Finalize", "channel": 1}') == [Flush(1)]
    assert send(dialect, FINALIZE) == [Flush(0), Flush(1)]


@pytest.mark.parametrize("encoding", list(Encoding))
def test_channels_of_any_encoding_are_split_and_whole(encoding: Encoding) -> None:
    """However the bytes are cut into messages."""
    three = AudioFormat(encoding, 16_000, 3)
    size = three.frame_bytes // 3
    data = bytes(n % 256 for n in range(three.frame_bytes * 50))
    dialect = deepgram(format=three, split=True)
    commands = send(dialect, *(data[at : at + 7] for at in range(0, len(data), 7)))
    for channel in range(3):
        heard = b"".join(c.pcm for c in commands if isinstance(c, Audio) and c.channel == channel)
        frames = [data[at : at + size] for at in range(channel * size, len(data), 3 * size)]
        assert heard == b"".join(frames)


def test_channels_are_mixed_unless_told_apart() -> None:
    """Two channels in one session, as one channel in results."""
    dialect = deepgram(format=AudioFormat(Encoding.S16LE, 16_000, 2))
    begin, _ = send(dialect, SECOND)
    assert begin.hearing.format.channels == 2
    (result,) = told(hear(dialect, paused("left")))
    assert result["channel_index"] == [0, 1]


def wav(rate: int, channels: int, bits: int = 16) -> bytes:
    block = channels * bits // 8
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * block, block, bits)
    return struct.pack("<4sI4s", b"RIFF", 0, b"WAVE") + fmt + struct.pack("<4sI", b"data", 0)


@pytest.mark.parametrize("size", [1, 5, 44, 1000])
def test_wav_head_says_the_format(size: int) -> None:
    """However it is cut; it is no audio itself, and it is right where the query says otherwise."""
    data = wav(24_000, 2) + bytes(2000)
    for asked in (None, MONO):
        dialect = deepgram(format=asked)
        commands = send(dialect, *(data[at : at + size] for at in range(0, len(data), size)))
        assert commands[0].hearing.format == AudioFormat(Encoding.S16LE, 24_000, 2)
        assert b"".join(c.pcm for c in commands if isinstance(c, Audio)) == bytes(2000)


@pytest.mark.parametrize(
    ("audio", "told_name"),
    [
        (b"OggS\x00\x02" + bytes(100), "Ogg"),
        (bytes(100), "names no encoding"),
        (wav(16_000, 1, 24) + bytes(10), "encoding"),
        (wav(1000, 1) + bytes(10), "1000 Hz"),
        (wav(16_000, 10_000) + bytes(10), "10000 channels"),
    ],
)
def test_audio_that_cannot_be_decoded_closes_with_1008(audio: bytes, told_name: str) -> None:
    """With a sentence that says what it is, before."""
    dialect = deepgram(format=None)
    error, close = send(dialect, audio)
    assert told_name in told([error], "Error")[0]["description"]
    assert (close.code, close.reason[:9]) == (1008, "DATA-0000")
    assert send(dialect, audio) == []


def test_rejected_audio_closes_with_1008() -> None:
    """A full daemon is no fault of the audio."""
    dialect, full = deepgram(), deepgram()
    send(dialect, SECOND)
    send(full, SECOND)
    error, close = hear(dialect, rejected())
    assert "Ogg" in told([error])[0]["description"]
    assert close.code == 1008
    assert [c.code for c in hear(full, rejected("streams", "too many"))] == [1013]


def test_configure_fails_by_its_name() -> None:
    dialect = deepgram()
    commands = send(
        dialect, '{"type": "Configure", "keyterms": []}', '{"type": "Configure", "features": {"numerals": true}}'
    )
    terms, features = told(commands, "ConfigureFailure")
    assert terms["code"] == "CONFIGURE_KEYTERMS_NOT_SUPPORTED"
    assert features["code"] == "CONFIGURE_INTERNAL_ERROR"
    assert terms["request_id"] == "id-1"


@pytest.mark.parametrize("text", ["", "{", "[]", '"KeepAlive"', '{"type": 7}', '{"type": "x"}', "[" * 100_000])
def test_text_that_is_no_message_is_an_error(text: str) -> None:
    """The connection goes on."""
    dialect = deepgram()
    (error,) = told(send(dialect, text))
    assert (error["type"], error["variant"]) == ("Error", "SchemaError")
    assert send(dialect, SECOND)


def test_ten_seconds_without_a_message_close_with_1011() -> None:
    """KeepAlive and audio put it off; after CloseStream it counts no more."""
    dialect, leaving = deepgram(), deepgram()
    send(leaving, SECOND, CLOSE_STREAM)
    closed: list[tuple[int, Command]] = []
    for second in range(30):
        if second in {5, 14}:
            send(dialect, KEEP_ALIVE)
        closed += [(second, command) for command in dialect.tick(float(second)) if not closed]
        assert not list(leaving.tick(float(second)))
    assert closed == [(24, Close(1011, "NET-0001: neither audio nor KeepAlive for 10 s"))]


class Live:
    """A client that sends a tenth of a second at a time, in real time."""

    def __init__(self) -> None:
        self.dialect = deepgram(utterance_end=1.0, vad_events=True)
        self.commands: list[Command] = []
        self.tenths = 0

    def until(self, seconds: float) -> None:
        while self.tenths < round(seconds * 10):
            if self.tenths % 10 == 0:
                self.commands += self.dialect.tick(self.tenths / 10)
            self.commands += send(self.dialect, bytes(3200))
            self.tenths += 1

    def hear(self, *messages: dict[str, Any]) -> None:
        self.commands += hear(self.dialect, *messages)

    def kinds(self) -> list[str]:
        return [message["type"] for message in told(self.commands)]


def test_utterance_ends_a_second_after_the_last_word() -> None:
    """By the client's audio, not by the clock; once."""
    live = Live()
    live.until(3.0)
    live.hear(speech(2.0), paused("turn left", 2.3))
    live.until(3.7)
    assert live.kinds() == ["SpeechStarted", "Results"]
    live.until(6.0)
    assert live.kinds() == ["SpeechStarted", "Results", "UtteranceEnd"]
    assert told(live.commands, "UtteranceEnd") == [{"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 2.5}]


def test_utterance_goes_on_while_a_window_is_open() -> None:
    """A window that opens in time puts the end off, until its text is known."""
    live = Live()
    live.until(3.0)
    live.hear(speech(2.0), paused("turn left", 2.3))
    live.until(3.4)
    live.hear(speech(3.1))
    live.until(9.0)
    assert "UtteranceEnd" not in live.kinds()
    live.hear(paused("now", 8.0))
    live.until(10.0)
    assert [message["last_word_end"] for message in told(live.commands, "UtteranceEnd")] == [8.1]


def test_utterance_of_a_window_without_words_is_not_ended() -> None:
    """Noise is no word: the end is still that of the last one."""
    live = Live()
    live.until(3.0)
    live.hear(speech(2.0), paused("turn left", 2.3), speech(2.9), paused("", 2.9))
    live.until(6.0)
    live.hear(speech(5.0), paused("", 5.0))
    live.until(9.0)
    assert [message["last_word_end"] for message in told(live.commands, "UtteranceEnd")] == [2.5]


def test_utterance_ends_by_the_words_not_by_their_windows() -> None:
    """A window begins 0.3 s before its first word."""
    dialect = deepgram(utterance_end=1.0)
    send(dialect, SECOND * 20)
    assert not told(
        hear(dialect, paused("one", 0.0), speech(0.75)), "UtteranceEnd"
    )  # a word at 1.05, and one ends at 0.1
    assert told(hear(dialect, paused("two", 1.05), speech(1.9)), "UtteranceEnd")  # at 2.2, and 1.15


def test_utterance_goes_on_in_a_window_before_one_that_is_lost() -> None:
    """A window that finds no place is lost at once, while an earlier one still waits for its text."""
    dialect = deepgram(utterance_end=1.0)
    send(dialect, SECOND * 20)
    commands = hear(dialect, speech(0.0), speech(0.5), speech(3.0), paused("one", 0.0), gap(3.0, 4.0), speech(9.0))
    assert not told(commands, "UtteranceEnd")
    assert told(hear(dialect, paused("two", 0.5)), "UtteranceEnd")[0]["last_word_end"] == 0.6


def test_utterance_of_audio_that_came_at_once_ends_by_the_clock() -> None:
    """Two seconds later it has surely been looked at, however fast it came."""
    dialect = deepgram(utterance_end=1.0)
    dialect_ticks = [list(dialect.tick(0.0))]
    send(dialect, SECOND * 20)
    hear(dialect, paused("one", 0.0))
    dialect_ticks += [list(dialect.tick(1.0)), list(dialect.tick(2.0))]
    assert [len(told(commands, "UtteranceEnd")) for commands in dialect_ticks] == [0, 0, 1]


def test_utterance_ends_in_a_file_are_those_between_its_words() -> None:
    """All audio is there before the first text: the windows' own times decide."""
    dialect = deepgram(utterance_end=1.0)
    send(dialect, SECOND * 20)
    commands = hear(dialect, speech(0.0), paused("one", 0.3), speech(0.8), paused("two", 1.1), speech(3.0))
    assert [message["last_word_end"] for message in told(commands, "UtteranceEnd")] == [1.2]
    commands += hear(dialect, paused("three", 3.3)) + send(dialect, CLOSE_STREAM) + hear(dialect, ended(20.0))
    assert [message["last_word_end"] for message in told(commands, "UtteranceEnd")] == [1.2, 3.4]
    assert [message["type"] for message in told(commands)][-2:] == ["UtteranceEnd", "Metadata"]


def test_another_session_goes_on_with_the_clock() -> None:
    """When the daemon has ended one that nobody asked to end."""
    dialect = deepgram()
    send(dialect, SECOND)
    hear(dialect, ended(1.0))
    begin, _ = send(dialect, SECOND)
    assert isinstance(begin, Begin)
    (result,) = told(hear(dialect, paused("left", 0.5)))
    assert result["start"] == 1.5
    assert result["channel"]["alternatives"][0]["words"][0]["start"] == 1.5


SPEECH = ["speak", "pause", "length", "gap"]
ACTIONS = st.sampled_from([*SPEECH, "audio", "odd", "finalize", "deliver"])


@given(st.lists(ACTIONS, max_size=40), st.integers(1, 3), st.booleans())
def test_client_gets_every_text_once_and_in_order(actions: list[str], channels: int, events: bool) -> None:
    """In finals of each channel, with every loss and an answer to each Finalize, whatever is said when."""
    shape = AudioFormat(Encoding.S16LE, 16_000, channels)
    asked = {"utterance_end": 1.0, "vad_events": True} if events else {}
    talk = Talk(deepgram(format=shape, split=True, **asked))
    audio = bytes(3200 * channels)
    sent = {"audio": audio, "odd": audio + b"\0", "finalize": FINALIZE}
    talk.send(audio)
    for number, action in enumerate(actions):
        if action in sent:
            talk.send(sent[action])
        elif action in SPEECH:
            talk.speech(action, number % channels, number % 4)
        else:
            talk.deliver()
        talk.send(KEEP_ALIVE)  # a client that is silent for ten ticks is gone
        talk.tick()
    talk.send(CLOSE_STREAM)
    talk.deliver()
    results = [result for result in told(talk.got, "Results") if result["is_final"]]
    for channel in range(channels):
        mine = [result for result in results if result["channel_index"] == [channel, channels]]
        assert " ".join(filter(None, map(transcript, mine))) == talk.daemon.text(channel)
        lost = [(r["start"], r["start"] + r["duration"]) for r in mine if "gap" in r["metadata"]]
        expected = [bounds[:2] for bounds in talk.daemon.lost.get(channel, [])]
        assert sum(lost, ()) == pytest.approx(sum(expected, ()), abs=1e-5)
        assert sum(result["from_finalize"] for result in mine) == actions.count("finalize")
    assert told(talk.got)[-1]["type"] == "Metadata"
    assert [command for command in talk.got if isinstance(command, Close)] == [Close(1000)]
    assert Counter(type(command) for command in talk.got)[Begin] == channels


def test_query_and_dialect_fit_each_other() -> None:
    """What is read from a query is what the session is heard with."""
    asked = listening(
        {"encoding": ["mulaw"], "sample_rate": ["8000"], "interim_results": ["true"], "model": ["nova-3"]}
    )
    dialect = Deepgram(asked, "id", "now")
    begin, _ = send(dialect, bytes(160))
    assert begin.hearing == asked.hearing(AudioFormat(Encoding.MULAW, 8_000, 1))
