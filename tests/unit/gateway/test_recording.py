"""The parts of a recording, joined: times, languages, models, gaps."""

from __future__ import annotations

from typing import Any

import pytest

from transcriber.gateway.dialects.recording import RecordedGap, gaps_header, heard, joined, unheard


def answer(text: str, start: float, end: float, **more: Any) -> dict[str, Any]:
    """A worker's answer with one segment of one word."""
    word = {"word": text, "start": start, "end": end, "confidence": 0.5}
    segment = {"start": start, "end": end, "text": text, "confidence": 0.5, "words": [word]}
    latency = {"queue": 0.0, "processing": 0.25, "end_to_end": 0.3}
    base = {"text": text, "language": "en", "model": "m", "confidence": 0.5, "segments": [segment], "latency": latency}
    return base | more


def test_times_are_shifted_to_the_recordings() -> None:
    """Words, segments and the whole count from the recording's beginning."""
    text = joined([heard(answer("one", 1.0, 2.0), 0.0, 10.0), heard(answer("two", 0.5, 1.5), 10.0, 14.0)])
    assert (text.text, text.start, text.end, text.duration) == ("one two", 0.0, 14.0, 14.0)
    assert [(w.text, w.start, w.end) for w in text.words] == [("one", 1.0, 2.0), ("two", 10.5, 11.5)]
    assert [(s.start, s.end) for s in text.segments] == [(1.0, 2.0), (10.5, 11.5)]
    assert text.processing == 0.5


def test_language_is_that_of_the_most_text_and_models_are_all() -> None:
    """A part of noise in another language does not name the recording's. Each model is named once."""
    text = joined(
        [
            heard(answer("ja", 0, 1, language="de"), 0, 1),
            heard(answer("a long text", 0, 1, model="n"), 1, 2),
            heard(answer("another", 0, 1), 2, 3),
        ]
    )
    assert (text.language, text.model) == ("en", "m, n")


def test_neighbouring_gaps_of_one_reason_are_one() -> None:
    """A lost minute is one gap, not one for each part; another reason begins another."""
    parts = [unheard(0, 30, "timeout"), unheard(30, 55, "timeout"), unheard(55, 60, "queue_full")]
    gaps = joined([*parts, heard(answer("x", 0, 1), 60, 61), unheard(61, 62, "queue_full")]).gaps
    assert gaps == (
        RecordedGap(0, 55, "timeout"),
        RecordedGap(55, 60, "queue_full"),
        RecordedGap(61, 62, "queue_full"),
    )
    assert gaps_header(gaps) == "0.000-55.000;timeout, 55.000-60.000;queue_full, 61.000-62.000;queue_full"


def test_header_of_very_many_gaps_stays_short() -> None:
    """Common clients refuse headers over 8 kB."""
    gaps = [RecordedGap(i, i + 0.5, "lost_upstream") for i in range(1000)]
    header = gaps_header(gaps)
    assert header.endswith(", and 950 more")
    assert len(header) < 4000


def test_answer_without_segments_keeps_its_text() -> None:
    """An answer that was too large for NATS has lost them."""
    text = heard(answer("all of it", 0, 1, segments=[]), 5.0, 9.0)
    assert (text.text, text.segments[0].start, text.segments[0].end, text.words) == ("all of it", 5.0, 9.0, [])


def test_nothing_is_an_empty_text() -> None:
    """A recording without a sample."""
    text = joined([])
    assert (text.text, text.duration, text.language, text.model, text.gaps) == ("", 0.0, "", "", ())


@pytest.mark.parametrize("bad", [{}, {"text": "x", "segments": [{}]}, {"text": "x", "segments": 1}])
def test_answer_of_another_shape_is_refused(bad: dict[str, Any]) -> None:
    """Another program may answer on the same subject."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        heard(bad, 0, 1)
