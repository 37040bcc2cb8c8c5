"""Which spellings name a language that Whisper knows."""

from __future__ import annotations

import _pywhispercpp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcriber.domain import languages


def test_every_language_of_whisper_is_known_and_no_other() -> None:
    """The list is that of the decoding library."""
    known = {_pywhispercpp.whisper_lang_str(i) for i in range(_pywhispercpp.whisper_lang_max_id() + 1)}
    assert known == languages.WHISPER
    assert len(known) == 100
    assert all(languages.code(code) == code for code in known)


def test_each_language_has_a_code_of_three_letters() -> None:
    """ISO 639-2 and -3 have one for each of them."""
    reached = {languages.code(code) for code in [*languages._OTHERS, *languages.WHISPER] if len(code) == 3}
    assert reached == languages.WHISPER


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("de", "de"),
        ("DE", "de"),
        (" de\t", "de"),
        ("de-DE", "de"),
        ("de_DE", "de"),
        ("de-CH-1996", "de"),
        ("zh-Hant-TW", "zh"),
        ("zh-yue", "yue"),
        ("zh-cmn-Hans", "zh"),
        ("yue", "yue"),
        ("yue-HK", "yue"),
        ("deu", "de"),
        ("ger", "de"),
        ("fra", "fr"),
        ("FRE", "fr"),
        ("zho", "zh"),
        ("chi", "zh"),
        ("cmn", "zh"),
        ("jpn", "ja"),
        ("haw", "haw"),
        ("jw", "jw"),
        ("jv", "jw"),
        ("jav", "jw"),
        ("nb", "no"),
        ("nb-NO", "no"),
        ("nob", "no"),
        ("nn", "nn"),
        ("nno", "nn"),
        ("iw", "he"),
        ("in", "id"),
        ("tl", "tl"),
        ("fil", "tl"),
        ("fil-PH", "tl"),
        ("auto", "auto"),
        ("Auto", "auto"),
    ],
)
def test_a_spelling_is_brought_to_the_code_of_whisper(text: str, code: str) -> None:
    assert languages.code(text) == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "english",
        "klingon",
        "tlh",
        "xx",
        "xx-DE",
        "e",
        "de-",
        "-de",
        "de--DE",
        "de DE",
        "d€",
        "ＤＥ",  # noqa: RUF001
        "auto-DE",
        "de-" + "x" * 9,
        "de" + "-x" * 99,
    ],
)
def test_unknown_name_is_no_language(text: str) -> None:
    assert languages.code(text) is None


@given(st.text())
def test_any_text_is_a_language_of_whisper_or_none(text: str) -> None:
    assert languages.code(text) in {None, languages.AUTO, *languages.WHISPER}


@given(st.text("deutrzh-_ DE", max_size=8))
def test_case_and_separator_make_no_difference(text: str) -> None:
    assert languages.code(text) == languages.code(text.upper()) == languages.code(text.replace("_", "-"))


def test_every_language_has_an_english_name() -> None:
    """OpenAI's answers name the language in English; an unknown code is left as it is."""
    names = {code: languages.name(code) for code in languages.WHISPER}
    assert len(set(names.values())) == 100
    assert (names["en"], names["de"], names["ht"], names["yue"]) == ("english", "german", "haitian creole", "cantonese")
    assert (names["su"], names["jw"], names["my"]) == ("sundanese", "javanese", "burmese")
    assert languages.name("xx") == "xx"
