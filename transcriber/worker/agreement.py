"""Which part of a growing window's text may be shown as settled. Pure.

LocalAgreement-2 (Liu et al. 2020; Machacek et al. 2023): what two consecutive passes over the growing audio agree on,
counted from the beginning, is stable. The last words of a pass hang on audio that is cut off, and the next one corrects
them.
"""

from __future__ import annotations


class Agreement:
    """The passes over one window."""

    def __init__(self) -> None:
        self._stable: list[str] = []
        self._last: list[str] = []

    def add(self, words: list[str]) -> tuple[str, str]:
        """Take the words of the newest pass; return the text to show and its stable prefix.

        The stable prefix only grows: where a later pass contradicts it, it stands, and the pass gives what follows.
        """
        agreed = 0
        for one, other in zip(words, self._last, strict=False):
            if one != other:
                break
            agreed += 1
        if agreed > len(self._stable) and words[: len(self._stable)] == self._stable:
            self._stable = words[:agreed]
        self._last = words
        return " ".join(self._stable + words[len(self._stable) :]), " ".join(self._stable)
