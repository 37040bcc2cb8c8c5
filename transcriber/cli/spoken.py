"""What was said against what was heard: words without their spelling, compared in their order. Pure."""

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
    """Words as they sound: without capitals and punctuation; `%` is a word, and `twenty-five` is the same as `25`."""
    plain = _IN_THOUSANDS.sub("", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("%", " percent"))
    return [part for word in _WORD.findall(plain) for part in _parts(word)]


def _parts(word: str) -> list[str]:
    """Numbers up to 99 as digits; those with tens and ones as two words, as they are spoken."""
    if re.fullmatch("[2-9][1-9]", word):
        return [f"{word[0]}0", word[1]]
    return [_NUMBERS.get(word, word)]


def matching(said: Sequence[str], heard: Sequence[str]) -> int:
    """Length of the longest common subsequence: how many words were heard as they were said, in order."""
    row = [0] * (len(heard) + 1)
    for word in said:
        before = row[:]
        for j, other in enumerate(heard):
            row[j + 1] = before[j] + 1 if word == other else max(row[j], before[j + 1])
    return row[-1]
