"""Made-up text is told from heard text by two signals, never by one."""

from __future__ import annotations

import numpy as np
import pytest

from transcriber.messages import Origin, Window
from transcriber.results import Segment
from transcriber.worker import guards
from transcriber.worker.engine import Decoded


def window(seconds: float = 3.0, voiced: float = 0.8) -> Window:
    length = int(seconds * 16_000)
    return Window(Origin("s", "x"), 0, 0, length, np.zeros(length, np.float32), voiced)


def segment(text: str, confidence: float = 0.9) -> Segment:
    return Segment(text, 0, 16_000, confidence)


@pytest.mark.parametrize(
    ("text", "confidence", "voiced"),
    [
        ("thank you", 0.9, 0.8),  # people do say it
        ("seven seven seven seven", 0.9, 0.8),  # and read out numbers
        ("the red train is ready", 0.2, 0.8),  # and mumble
        ("platform nine", 0.9, 0.05),  # and a word may be short
    ],
)
def test_one_signal_alone_suppresses_nothing(text: str, confidence: float, voiced: float) -> None:
    """Each sign by itself has an innocent explanation."""
    said = segment(text, confidence)
    assert len(guards.signals(said, window(voiced=voiced))) == 1
    assert guards.review(window(voiced=voiced), Decoded((said,), "en"), "m").segments == (said,)


@pytest.mark.parametrize(
    ("text", "confidence", "voiced", "reason"),
    [
        ("Thank you.", 0.9, 0.05, "silence+sign_off"),
        ("Thank you.", 0.2, 0.8, "low_confidence+sign_off"),
        ("go go go go go", 0.2, 0.8, "repetition+low_confidence"),
        ("turn left now turn left now turn left now turn left now", 0.3, 0.8, "repetition+low_confidence"),
        ("mm", 0.1, 0.0, "low_confidence+silence"),
    ],
)
def test_two_signals_hold_a_segment_back_and_name_themselves(
    text: str, confidence: float, voiced: float, reason: str
) -> None:
    """What is suppressed is kept with its reason, so that it can be published."""
    good = segment("the bus is open")
    outcome = guards.review(window(voiced=voiced), Decoded((segment(text, confidence), good), "en"), "m")
    assert [(h.segment.text, h.reason) for h in outcome.held_back] == [(text, reason)]
    assert outcome.text == ("the bus is open" if voiced > 0.1 else outcome.text)


def test_a_flood_of_words_is_a_signal() -> None:
    """Nobody says forty words in three seconds."""
    many = (
        "the quick brown fox jumps over a lazy dog while eleven grey herons wade slowly through cold muddy water "
        "hunting small fish near an old broken mill"
    )
    assert guards.signals(segment(many), window(3.0)) == ["too_fast"]


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        ("a a a", False),
        ("a a a a", True),
        ("a b a b a b", False),
        ("a b a b a b a b", True),
        ("x a b c a b c a b c a b c", True),
    ],
)
def test_loops_are_found_from_four_repeats_on(text: str, loop: bool) -> None:
    """Runs of one to four words, wherever they start."""
    assert guards.loops(text.split()) is loop
