"""Words as they sound, and how many of them were heard."""

from __future__ import annotations

import pytest

from transcriber.cli.spoken import matching, words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Close the valve, please.", "close the valve please"),
        ("up by 5%.", "up by five percent"),
        ("up by 5 %", "up by 5 percent"),
        ("twenty-five of them", "25 of them"),
        ("twelve, 20 and zero", "12, twenty and 0"),
        ("at 9:30", "at nine thirty"),
        ("1,200 people", "1200 people"),
        ("It\N{RIGHT SINGLE QUOTATION MARK}s Anna's", "it's anna's"),
        ("ZÜRICH", "zürich"),
    ],
)
def test_spelling_makes_no_difference(one: str, other: str) -> None:
    """Capitals, punctuation, and numbers up to 99 as words or as digits count the same."""
    assert words(one) == words(other) != []


@pytest.mark.parametrize(("one", "other"), [("its", "it's"), ("25", "twenty six"), ("1,2", "12"), ("300", "30")])
def test_other_words_are_others(one: str, other: str) -> None:
    """Words that sound different, or may, stay different."""
    assert words(one) != words(other)


def test_words_are_counted_in_their_order() -> None:
    """A word left out, added or changed costs one. A larger model's capitals and punctuation cost nothing."""
    said = words("close the valve at sixty percent")
    assert matching(said, words("Close the valve, at 60%.")) == 6
    assert matching(said, words("close valve at at sixty")) == 4
    assert matching(said, words("percent sixty at valve the close")) == 1
    assert matching(said, []) == 0
