"""A recording's text in every form of OpenAI's API."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from cues import parse_srt, parse_vtt

from transcriber.gateway.dialects.openai_answers import END, Events, answer
from transcriber.gateway.dialects.openai_rest import Format, Options
from transcriber.gateway.dialects.recording import (
    RecordedGap,
    RecordedSegment,
    RecordedWord,
    RecordingText,
    Wish,
    joined,
)


def segment(text: str, start: float, end: float) -> RecordedSegment:
    words = text.split()
    step = (end - start) / max(1, len(words))
    each = tuple(RecordedWord(w, start + i * step, start + (i + 1) * step, 0.5) for i, w in enumerate(words))
    return RecordedSegment(text=text, start=start, end=end, confidence=0.25, words=each)


def recording(*segments: RecordedSegment, **more: Any) -> RecordingText:
    fields: dict[str, Any] = {"end": 9.5, "language": "de", "model": "m"}
    return RecordingText(segments=segments, **(fields | more))


TEXT = recording(segment("guten tag", 1.5, 3.0), segment("bis <bald>", 4.0, 6.0))


def written(options: Options, text: RecordingText = TEXT) -> Any:
    kind, body = answer(options, text)
    assert kind == "application/json"
    return json.loads(body)


def test_json_holds_text_and_duration() -> None:
    """The usage is in whole seconds, rounded up as it is billed elsewhere. An empty text is a text."""
    assert written(Options(wish=Wish())) == {
        "text": "guten tag bis <bald>",
        "usage": {"type": "duration", "seconds": 10},
    }
    assert written(Options(wish=Wish()), recording())["text"] == ""


def test_logprobs_are_one_for_each_word() -> None:
    """Where they were asked for; with the bytes of each."""
    (first, *others) = written(Options(wish=Wish(), logprobs=True))["logprobs"]
    assert first == {"token": "guten", "logprob": math.log(0.5), "bytes": list(b"guten")}
    assert len(others) == 3


def test_text_is_a_line() -> None:
    """Plain, with a line end."""
    assert answer(Options(wish=Wish(), format=Format.TEXT), TEXT) == ("text/plain", "guten tag bis <bald>\n")


def test_subtitles_read_back() -> None:
    """A cue for each segment that says something, by the formats' own rules."""
    text = recording(*TEXT.segments, segment(" ", 6.0, 7.0))
    rows = [(1.5, 3.0, "guten tag"), (4.0, 6.0, "bis <bald>")]
    assert parse_srt(answer(Options(wish=Wish(), format=Format.SRT), text)[1]) == rows
    assert parse_vtt(answer(Options(wish=Wish(), format=Format.VTT), text)[1]) == rows


def test_verbose_json_has_every_field_of_a_segment() -> None:
    """Typed clients fail for one that is missing, and for a number that is none."""
    body = written(Options(wish=Wish(), format=Format.VERBOSE_JSON, words=True))
    assert (body["task"], body["language"], body["duration"], body["text"]) == ("transcribe", "german", 9.5, TEXT.text)
    first, second = body["segments"]
    assert first.pop("compression_ratio") == pytest.approx(9 / 17)  # nine bytes; zlib adds eight to so few
    assert first == {
        "id": 0,
        "seek": 150,
        "start": 1.5,
        "end": 3.0,
        "text": "guten tag",
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": math.log(0.25),
        "no_speech_prob": 0.0,
    }
    assert second["id"] == 1
    assert body["words"][1] == {"word": "tag", "start": 2.25, "end": 3.0}
    assert "gaps" not in body


@pytest.mark.parametrize(("words", "segments"), [(True, False), (False, True), (True, True)])
def test_granularities_choose_words_and_segments(words: bool, segments: bool) -> None:
    """What was not asked for is not there."""
    body = written(Options(wish=Wish(), format=Format.VERBOSE_JSON, words=words, segments=segments))
    assert ("words" in body, "segments" in body) == (words, segments)


def test_confidence_of_zero_has_a_finite_logarithm() -> None:
    """JSON has no infinity."""
    nothing = RecordedSegment(text="x", start=0, end=1, confidence=0.0)
    (only,) = written(Options(wish=Wish(), format=Format.VERBOSE_JSON), recording(nothing))["segments"]
    assert -50 < only["avg_logprob"] < -20


def test_gaps_are_told() -> None:
    """In verbose JSON, and at the end of a stream."""
    text = recording(gaps=(RecordedGap(1.0, 2.5, "queue_full"),))
    told = [{"start": 1.0, "end": 2.5, "reason": "queue_full"}]
    assert written(Options(wish=Wish(), format=Format.VERBOSE_JSON), text)["gaps"] == told
    done = Events(Options(wish=Wish())).done(text).split(b"\n")[0]
    assert json.loads(done.removeprefix(b"data: "))["gaps"] == told


def test_translation_says_english() -> None:
    """Whatever was spoken."""
    body = written(Options(wish=Wish(translate=True), format=Format.VERBOSE_JSON))
    assert (body["task"], body["language"]) == ("translate", "english")


def test_deltas_together_are_the_text() -> None:
    """Clients concatenate them. A silent part is no event."""
    parts = [recording(), recording(segment("eins", 0, 1)), recording(), recording(segment("zwei drei", 2, 3))]
    events = Events(Options(wish=Wish()))
    sent = [event for part in parts if (event := events.delta(part)) is not None]
    assert len(sent) == 2
    deltas = [json.loads(event.decode().removeprefix("data: ")) for event in sent]
    assert {delta["type"] for delta in deltas} == {"transcript.text.delta"}
    done, end = events.done(joined(parts)).split(b"\n\n", 1)
    assert end == END
    assert json.loads(done.removeprefix(b"data: ")) == {
        "type": "transcript.text.done",
        "text": "".join(delta["delta"] for delta in deltas),
    }
