"""What a Deepgram query asks for, and the answer in its shape."""

from __future__ import annotations

from typing import Any

import pytest

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.gateway.dialects.deepgram_rest import About, answer, options
from transcriber.gateway.dialects.recording import (
    RecordedGap,
    RecordedSegment,
    RecordedWord,
    RecordingText,
    Wish,
)
from transcriber.gateway.problems import Problem

ABOUT = About(request_id="r", sha256="s", created="2026-11-30T20:00:00.000Z")


def said(text: str, start: float, confidence: float = 0.5, **more: Any) -> RecordingText:
    word = RecordedWord(text, start, start + 1, confidence)
    segment = RecordedSegment(text=text, start=start, end=start + 1, confidence=confidence, words=(word,))
    return RecordingText(end=10.0, language="en", model="m", segments=(segment,), **more)


def test_query_without_parameters_asks_for_a_file_in_one_text() -> None:
    """Every choice is left to the worker."""
    asked = options({})
    assert (asked.wish, asked.raw, asked.utterances, asked.not_done) == (Wish(), None, False, ())


def test_every_parameter_that_counts_is_read() -> None:
    """As the official client sends them, all as text."""
    query = {
        "model": ["nova-3"],
        "language": ["en-GB"],
        "multichannel": ["true"],
        "utterances": ["true"],
        "keyterm": ["Kiel", "Ulm"],
        "keywords": ["Bonn:2"],
        "diarize": ["true"],
        "summarize": ["v2"],
        "paragraphs": ["false"],
        "smart_format": ["true"],
        "tag": ["a", "b"],
        "encoding": ["mulaw"],
        "sample_rate": ["8000"],
        "channels": ["2"],
    }
    asked = options(query)
    assert asked.wish == Wish(model="nova-3", language="en", prompt="Kiel, Ulm, Bonn", each_channel=True)
    assert asked.raw == AudioFormat(Encoding.MULAW, 8000, 2)
    assert (asked.utterances, asked.tags, asked.not_done) == (True, ("a", "b"), ("diarize", "summarize"))


@pytest.mark.parametrize("query", [{"callback": ["http://x"]}, {"redact": ["pci"]}, {"encoding": ["linear16"]}])
def test_parameter_that_would_spoil_the_text_is_refused(query: dict[str, list[str]]) -> None:
    """As for live speech, whose tests have the others."""
    with pytest.raises(Problem) as caught:
        options(query)
    assert (caught.value.status, caught.value.code) == (400, "INVALID_QUERY_PARAMETER")


def test_encoding_within_a_file_is_left_to_its_head() -> None:
    """FLAC and Opus say themselves what they are."""
    assert options({"encoding": ["opus"]}).raw is None


def test_answer_has_a_text_for_each_channel() -> None:
    """With words, times and confidences; utterances of all channels in time's order."""
    body = answer(options({"utterances": ["true"]}), ABOUT, [said("two", 2.0), said("one", 1.0, 0.25)])
    metadata = body["metadata"]
    assert (metadata["request_id"], metadata["sha256"], metadata["created"]) == ("r", "s", ABOUT.created)
    assert (metadata["duration"], metadata["channels"], metadata["models"]) == (10.0, 2, ["m"])
    assert "warnings" not in metadata
    (first,), (second,) = (channel["alternatives"] for channel in body["results"]["channels"])
    assert (first["transcript"], second["transcript"], second["confidence"]) == ("two", "one", 0.25)
    assert first["words"] == [{"word": "two", "start": 2.0, "end": 3.0, "confidence": 0.5, "punctuated_word": "two"}]
    utterances = [(u["channel"], u["transcript"], u["start"]) for u in body["results"]["utterances"]]
    assert utterances == [(1, "one", 1.0), (0, "two", 2.0)]


def test_answer_tells_what_was_not_done_and_what_was_lost() -> None:
    """Neither is silent."""
    text = said("a", 0.0, gaps=(RecordedGap(3.0, 4.0, "timeout"),))
    metadata = answer(options({"diarize": ["true"], "tag": ["t"]}), ABOUT, [text])["metadata"]
    assert [warning["parameter"] for warning in metadata["warnings"]] == ["diarize"]
    assert metadata["gaps"] == [{"start": 3.0, "end": 4.0, "reason": "timeout", "channel": 0}]
    assert metadata["tags"] == ["t"]


def test_silence_has_confidence_nought() -> None:
    """There is nothing to be confident of."""
    nothing = RecordingText(end=1.0, language="", model="m", segments=())
    (channel,) = answer(options({}), ABOUT, [nothing])["results"]["channels"]
    assert channel["alternatives"] == [{"transcript": "", "confidence": 0.0, "words": []}]
