"""Text on which two passes over a growing window agree is shown as stable, and stays."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from transcriber.pipeline.agreement import Agreement

WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=6)


def test_the_words_of_two_passes_become_stable() -> None:
    """The first pass settles nothing. Then the common beginning of each two passes is stable."""
    agreement = Agreement()
    assert agreement.add("turn left") == ("turn left", "")
    assert agreement.add("turn left to") == ("turn left to", "turn left")
    assert agreement.add("turn left two seven") == ("turn left two seven", "turn left")
    assert agreement.add("turn left two seven zero") == (
        "turn left two seven zero",
        "turn left two seven",
    )


def test_contradicting_pass_changes_only_the_unstable_rest() -> None:
    """Stable text stays, even when the model changes its mind."""
    agreement = Agreement()
    agreement.add("red bus")
    agreement.add("red bus")
    assert agreement.add("bed bus stops") == ("red bus stops", "red bus")
    assert agreement.add("bed bus stops") == ("red bus stops", "red bus")
    assert agreement.add("bed") == ("red bus", "red bus")


@given(st.lists(WORDS, max_size=8))
def test_the_stable_prefix_only_grows_and_begins_the_text(passes: list[list[str]]) -> None:
    """That holds whatever the passes say."""
    agreement = Agreement()
    before: list[str] = []
    for words in passes:
        text, stable = agreement.add(" ".join(words))
        assert stable.split()[: len(before)] == before
        assert text.split()[: len(stable.split())] == stable.split()
        before = stable.split()


def test_spaceless_text_becomes_stable_by_the_character() -> None:
    """Chinese, Japanese and Thai have no words to count by, and get no spaces."""
    for passes in (
        ("今天天气", "今天天气很好", "今天天气很好,我们去公园"),
        ("今日はとても", "今日はとてもいい", "今日はとてもいい天気ですね。"),
        ("สวัสดี", "สวัสดีครับ", "สวัสดีครับผม"),
    ):
        agreement = Agreement()
        stable = [agreement.add(text)[1] for text in passes]
        assert stable == ["", passes[0], passes[1]]


def test_characters_before_a_changed_one_stay_stable() -> None:
    """A pass hears the last character in another way."""
    agreement = Agreement()
    agreement.add("我想去北进")
    assert agreement.add("我想去北京看看") == ("我想去北京看看", "我想去北")
    assert agreement.add("我想去北京看一看") == ("我想去北京看一看", "我想去北京看")
    assert agreement.add("你想去北京看一看吧") == ("我想去北京看一看吧", "我想去北京看")


def test_words_with_spaces_among_characters_keep_them() -> None:
    """A Latin word counts as a whole, with or without spaces around it."""
    agreement = Agreement()
    agreement.add("我用 Python 写程")
    assert agreement.add("我用 Python 写程序") == ("我用 Python 写程序", "我用 Python 写程")
    agreement = Agreement()
    agreement.add("我用Pyth")
    assert agreement.add("我用Python写") == ("我用Python写", "我用")


def test_korean_and_indic_words_stay_whole() -> None:
    """They have spaces, whatever their letters look like."""
    for first, second, stable in (
        ("안녕하세요 여러", "안녕하세요 여러분", "안녕하세요"),
        ("नमस्ते दुनि", "नमस्ते दुनिया", "नमस्ते"),
    ):
        agreement = Agreement()
        agreement.add(first)
        assert agreement.add(second) == (second, stable)


def test_a_character_is_not_parted_from_its_marks() -> None:
    """Stable text never ends before a mark that changes the character, nor after a vowel that is written first."""
    for first, second, stable in (
        ("か\u3099き", "か\u3099く", "か\u3099"),  # ga as two code points
        ("か", "か\u3099", ""),
        ("กเก", "กเข", "ก"),  # SARA E stands before its consonant
        ("น\u0e49\u0e33", "น\u0e49", ""),  # SARA AM
        ("ស្ត", "ស្រ", ""),  # a stack of consonants in Khmer
        ("ｶﾞｷ", "ｶﾞｸ", "ｶﾞ"),
    ):
        agreement = Agreement()
        agreement.add(first)
        assert agreement.add(second) == (second, stable)


ANY_TEXT = st.text(st.sampled_from("ab ,.é\u0301今天がか\u3099เกิน้ำក្ក안ｶﾞ👩\u200d🚀"), max_size=12)


@given(st.lists(ANY_TEXT, max_size=8))
def test_stable_text_only_grows_in_any_script(passes: list[str]) -> None:
    """That holds whatever the passes say. The newest text comes out unchanged as long as it does not contradict."""
    agreement = Agreement()
    before = ""
    for said in passes:
        text, stable = agreement.add(said)
        assert stable.startswith(before)
        assert text.startswith(stable)
        assert text == " ".join(text.split())
        if said.startswith(stable):
            follows = said[len(stable) : len(stable) + 1]
            if text == said and stable:
                assert not follows or not unicodedata.category(follows).startswith("M")
        before = stable
