"""Which part of a growing window's text may be shown as settled. Pure.

LocalAgreement-2 (Liu et al. 2020; Machacek et al. 2023): what two consecutive passes over the growing audio agree on,
counted from the beginning, is stable. The last words of a pass hang on audio that is cut off, and the next one corrects
them.
"""

from __future__ import annotations

import re
import unicodedata

# Scripts that put no spaces between words, each with its own marks: Thai, Lao, Tibetan, Myanmar, Khmer, Javanese, Han
# with its radicals, punctuation, kana, full-width forms. Korean has spaces.
_SPACELESS = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\ua980-\ua9ff\uaa60-\uaa7f\u2e80-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff00-\uff9f\U00020000-\U0003ffff]"
)
# What belongs to the character before it, though Unicode calls it a letter: Thai and Lao AM, half-width voicing marks;
# and the joiner of emoji.
_TRAILING = "\u0e33\u0eb3\uff9e\uff9f\u200d"
# What belongs to the character after it: vowels that Thai and Lao write first, what stacks consonants in Khmer and
# Myanmar, and the joiner.
_LEADING = "\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4\u17d2\u1039\u200d"


class Agreement:
    """The passes over one window."""

    def __init__(self) -> None:
        self._stable: list[str] = []
        self._last: list[str] = []

    def add(self, text: str) -> tuple[str, str]:
        """Take the text of the newest pass; return the text to show and its stable prefix.

        The stable prefix only grows: where a later pass contradicts it, it stands, and the pass gives what follows. It
        grows by words, and by characters in scripts without spaces.
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
    """Words and single characters, all but the first word with its space in front: joined they are the text."""
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
    """Whether text may end between two neighbours: not inside a word with spaces around it, nor before a mark."""
    if not (_SPACELESS.match(one) or _SPACELESS.match(other)):
        return False
    return one not in _LEADING and other not in _TRAILING and not unicodedata.category(other).startswith("M")
