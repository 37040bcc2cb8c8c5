"""Compares recognised words with the spoken ones, in order and regardless of spelling. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SMALL = """zero one two three four five six seven eight nine ten
    eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBERS = {word: str(n) for n, word in enumerate(_SMALL.split())}
_NUMBERS |= {word: str(10 * n) for n, word in enumerate(_TENS.split(), 2)}
_WORD = re.compile(r"\d+|[^\W\d_]+(?:'[^\W\d_]+)*")
_IN_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")


def words(text: str) -> list[str]:
    """Split a text into words as they sound: no capitals, no punctuation. `%` is a word; `twenty-five` equals `25`."""
    plain = _IN_THOUSANDS.sub("", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("%", " percent"))
    return [part for word in _WORD.findall(plain) for part in _parts(word)]


def _parts(word: str) -> list[str]:
    """Write numbers up to 99 as digits. A number with tens and ones becomes two words, as it is spoken."""
    if re.fullmatch("[2-9][1-9]", word):
        return [f"{word[0]}0", word[1]]
    return [_NUMBERS.get(word, word)]


def matching(spoken: Sequence[str], recognised: Sequence[str]) -> int:
    """Count the words that were recognised as spoken, in order: the length of the longest common subsequence."""
    row = [0] * (len(recognised) + 1)
    for word in spoken:
        before = row[:]
        for j, other in enumerate(recognised):
            row[j + 1] = before[j] + 1 if word == other else max(row[j], before[j + 1])
    return row[-1]
