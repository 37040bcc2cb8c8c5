"""Made-up text is told from heard text over the whole window, by impossible content or by two signs together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from transcriber.domain.results import Segment, Word
from transcriber.domain.timeline import Guidance, Origin, Window
from transcriber.worker import hallucinations
from transcriber.worker.engine import Decoded


def window(seconds: float = 3.0, voiced: float = 0.8) -> Window:
    length = int(seconds * 16_000)
    return Window(
        origin=Origin("s", "x"), sequence=0, start=0, end=length, samples=np.zeros(length, np.float32), voiced=voiced
    )


def segment(text: str, confidence: float = 0.9, start: int = 0, end: int = 16_000) -> Segment:
    words = tuple(Word(word, start, end, confidence) for word in text.split())
    return Segment(text=text, start=start, end=end, confidence=confidence, words=words)


def decoded(*segments: Segment, endless: bool = False) -> Decoded:
    return Decoded(segments, "en", endless)


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
    assert len(hallucinations.signs([said], window(voiced=voiced))) == 1
    assert hallucinations.review(window(voiced=voiced), decoded(said), "m").segments == (said,)


@pytest.mark.parametrize(
    ("text", "confidence", "voiced", "reason"),
    [
        ("Thank you.", 0.9, 0.05, "silence+sign_off"),
        ("Thank you.", 0.2, 0.8, "low_confidence+sign_off"),
        ("Vielen Dank fürs Zuschauen!", 0.2, 0.8, "low_confidence+sign_off"),
        ("ご視聴ありがとうございました。", 0.2, 0.8, "low_confidence+sign_off"),
        ("Untertitel der Amara.org-Community", 0.2, 0.8, "low_confidence+sign_off"),
        ("go go go go go", 0.2, 0.8, "repetition+low_confidence"),
        ("turn left now turn left now turn left now turn left now", 0.3, 0.8, "repetition+low_confidence"),
        ("mm", 0.1, 0.0, "low_confidence+silence"),
    ],
)
def test_two_signals_hold_the_window_back_and_name_themselves(
    text: str, confidence: float, voiced: float, reason: str
) -> None:
    """Suppressed text is kept with its reason, so that it can be published."""
    outcome = hallucinations.review(window(voiced=voiced), decoded(segment(text, confidence)), "m")
    assert [(h.segment.text, h.reason) for h in outcome.held_back] == [(text, reason)]
    assert outcome.text == ""


def test_no_speech_in_another_pass_is_a_signal() -> None:
    """Whisper's own probability counts where the text is in doubt already."""
    mumbled = decoded(segment("on the", 0.2))
    assert hallucinations.review(window(), mumbled, "m").text == "on the"
    assert hallucinations.review(window(), mumbled, "m", silent=True).held_back[0].reason == "low_confidence+no_speech"


def test_a_sign_off_over_music_is_held_back() -> None:
    """Two words for eleven seconds of voice are too few, in any script; twenty are speech."""
    assert hallucinations.signs([segment("Thank you.")], window(11.0)) == ["sign_off", "sparse"]
    assert hallucinations.signs([segment("谢谢")], window(6.0)) == ["sparse"]
    assert hallucinations.signs([segment("洗澡你以后能够做")], window(5.0)) == []
    assert hallucinations.signs([segment("Thank you for trying out the program.")], window(11.0)) == []
    assert hallucinations.signs([segment("Thank you.")], window(11.0, voiced=0.1)) == ["silence", "sign_off"]


@pytest.mark.parametrize(("text", "seconds"), [("Thank you.", 1.5), ("Right.", 9.0)])
def test_sign_off_and_scant_text_are_decoded_again(text: str, seconds: float) -> None:
    """Another pass may prove a sign-off, or next to no text for much voice, wrong. Once is enough."""
    said = decoded(segment(text))
    assert hallucinations.doubtful(said, window(seconds))
    assert not hallucinations.doubtful(said, window(seconds), runaway_only=True)
    assert not hallucinations.doubtful(
        decoded(segment("Thank you, that is all that I wanted to know.")), window(seconds)
    )


def test_text_unsure_in_several_passes_is_held_back() -> None:
    """One pass alone may be unsure. When the next one is no surer, the words are not worth having."""
    mumbled = decoded(segment("i just", 0.15))
    assert hallucinations.very_unsure(mumbled)
    assert not hallucinations.very_unsure(decoded(segment("i just", 0.3)))
    assert hallucinations.review(window(), mumbled, "m", unsure=True).held_back[0].reason == "low_confidence+no_surer"


def test_a_loop_over_many_short_segments_is_found() -> None:
    """None of them repeats anything by itself."""
    pieces = [segment("in the exhibition,", 0.3) for _ in range(5)]
    assert hallucinations.signs(pieces, window(5.0)) == ["repetition", "low_confidence"]
    assert hallucinations.review(window(5.0), decoded(*pieces), "m").segments == ()


@pytest.mark.parametrize("endless", [False, True])
def test_more_words_than_time_are_held_back_whatever_else(endless: bool) -> None:
    """Nobody says forty words in three seconds, however sure the model is. A pass that had to be ended counts, too."""
    many = "the quick brown fox jumps over a lazy dog while eleven grey herons wade slowly through cold muddy water"
    said = segment(many) if endless else segment(f"{many} hunting small fish near an old broken mill")
    outcome = hallucinations.review(window(3.0), decoded(said, endless=endless), "m")
    assert [h.reason for h in outcome.held_back] == ["endless" if endless else "too_fast"]


def test_a_short_window_may_hold_a_word() -> None:
    """A third of a second is enough for one, not for four."""
    assert hallucinations.signs([segment("No.")], window(0.33)) == []
    assert hallucinations.signs([segment("No, I do not.")], window(0.33)) == ["too_fast"]


@pytest.mark.parametrize(
    "text",
    [
        "[BLANK_AUDIO]",
        "(upbeat music)",
        "*crying*",
        "♪ la la la ♪",
        "♪♪",
        "[ Sigh ] [ Sigh ]",
        "(gunshots",
        "\uff08\u97f3\u697d\uff09",
    ],
)
def test_names_of_sounds_are_held_back(text: str) -> None:
    """They describe sound without speech, and are no reason to decode again."""
    named = decoded(segment(text, 0.2))
    outcome = hallucinations.review(window(), named, "m")
    assert (outcome.text, [h.reason for h in outcome.held_back]) == ("", ["sound"])
    assert not hallucinations.doubtful(named, window())


def test_words_next_to_the_name_of_a_sound_stay() -> None:
    """Text and words lose only the sound."""
    outcome = hallucinations.review(window(), decoded(segment("(door slams) who is there [music playing]")), "m")
    assert outcome.text == "who is there"
    assert [word.text for word in outcome.segments[0].words] == ["who", "is", "there"]
    assert [h.segment.text for h in outcome.held_back] == ["(door slams)", "[music playing]"]


def test_segment_without_time_that_repeats_the_last_is_dropped() -> None:
    """Equal neighbours of zero length are the tail of a loop."""
    said, again = segment("a thin stripe", start=0, end=9000), segment("a thin stripe", start=9000, end=9000)
    outcome = hallucinations.review(window(), decoded(said, again), "m")
    assert outcome.segments == (said,)
    assert [h.reason for h in outcome.held_back] == ["repetition"]


@pytest.mark.parametrize(
    ("text", "confidence", "doubt"),
    [
        ("this is all very high pitched", 0.9, False),
        ("this is all very high pitched this is all very high pitched", 0.9, True),  # only another pass can tell
        ("which are exact imitations, which are exact imitations.", 0.9, True),
        ("no no", 0.9, False),
        ("no no no no", 0.9, True),
        ("gate five", 0.2, True),
    ],
)
def test_doubt_leads_to_another_pass(text: str, confidence: float, doubt: bool) -> None:
    """The doubt may be unfounded. Another pass costs time, not words."""
    assert hallucinations.doubtful(decoded(segment(text, confidence)), window()) is doubt


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
    """Runs of one to twelve words, wherever they start."""
    assert hallucinations.loops(text.split()) is loop


PROMPT = "Kiel, Ulm. The red train is ready; Platform nine."


@pytest.mark.parametrize(
    ("text", "echo"),
    [
        ("the red train is ready", True),
        ("Kiel Ulm the", True),
        ("Platform nine.", False),  # two words are a command that was to be spelled well
        ("the red train was ready", False),
        ("red train is ready now", False),
        ("he red train", False),
    ],
)
def test_three_words_of_the_prompt_in_a_row_may_be_its_echo(text: str, echo: bool) -> None:
    """That is one sign: the window is decoded again, and held back only if another sign agrees."""
    said, guided = segment(text), replace(window(), guidance=Guidance(PROMPT))
    assert hallucinations.signs([said], guided) == ["prompt"] * echo
    assert hallucinations.doubtful(decoded(said), guided) is echo
    assert hallucinations.review(guided, decoded(said), "m").segments == (said,)
    silent = hallucinations.review(guided, decoded(said), "m", silent=True)
    assert [held.reason for held in silent.held_back] == ["no_speech+prompt"] * echo


def test_text_is_no_echo_without_a_prompt() -> None:
    """Neither where a session has none, nor where it has an empty one."""
    said = segment("the red train is ready")
    for prompt in (None, ""):
        assert hallucinations.signs([said], replace(window(), guidance=Guidance(prompt))) == []
