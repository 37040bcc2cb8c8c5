"""Decides which part of a growing window's text is stable. Pure.

LocalAgreement-2 (Liu et al. 2020; Machacek et al. 2023): a prefix is stable once two consecutive passes over the
growing audio agree on it. The last words of a pass depend on audio that is cut off, and the next pass corrects them.
"""

from __future__ import annotations

import re
import unicodedata

# Scripts without spaces between words, with their marks: Thai, Lao, Tibetan, Myanmar, Khmer, Javanese, and Han with its
# radicals, punctuation, kana and full-width forms. Korean has spaces.
_SPACELESS = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\ua980-\ua9ff\uaa60-\uaa7f\u2e80-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff00-\uff9f\U00020000-\U0003ffff]"
)
# Characters that belong to the one before them, although Unicode calls them letters: Thai and Lao AM, and half-width
# voicing marks. The joiner of emoji, too.
_TRAILING = "\u0e33\u0eb3\uff9e\uff9f\u200d"
# Characters that belong to the one after them. These are vowels that Thai and Lao write first, signs that stack
# consonants in Khmer and Myanmar, and the joiner.
_LEADING = "\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4\u17d2\u1039\u200d"


class Agreement:
    """Compares the passes over one window."""

    def __init__(self) -> None:
        self._stable: list[str] = []
        self._last: list[str] = []

    def add(self, text: str) -> tuple[str, str]:
        """Take the text of the newest pass; return the text to show and its stable prefix.

        The stable prefix only grows. If a later pass contradicts it, the prefix stays and the pass provides the rest.
        It grows by words, or by characters in scripts without spaces.
        """
        units = _units(text)
        agreed = 0
        for one, other in zip(units, self._last, strict=False):
            if one != other:
                break
            agreed += 1
        if agreed > len(self._stable) and units[: len(self._stable)] == self._stable:
            self._stable = units[:agreed]
        self._last = units
        return "".join(self._stable + units[len(self._stable) :]), "".join(self._stable)


def _units(text: str) -> list[str]:
    """Split a text into words and single characters, each word after the first with its space in front."""
    units: list[str] = []
    for word in text.split():
        first = len(units)
        begin = 0
        for at in range(1, len(word)) if _SPACELESS.search(word) else ():
            if _separate(word[at - 1], word[at]):
                units.append(word[begin:at])
                begin = at
        units.append(word[begin:])
        if first:
            units[first] = f" {units[first]}"
    return units


def _separate(one: str, other: str) -> bool:
    """Whether text may end between two characters: not inside a word of a script with spaces, nor before a mark."""
    if not (_SPACELESS.match(one) or _SPACELESS.match(other)):
        return False
    return one not in _LEADING and other not in _TRAILING and not unicodedata.category(other).startswith("M")
