"""Counts word errors on real speech as OpenAI does, after its normalisation of texts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Self

from transcriber.domain.errors import CannotStart

# Languages without spaces between words, where each letter counts as a word, as in OpenAI's figures.
_BY_LETTER = frozenset({"ja", "lo", "my", "th", "zh"})


@dataclass(frozen=True, slots=True)
class Errors:
    """Words inserted, deleted or substituted, and words said."""

    wrong: int = 0
    said: int = 0

    def __add__(self, other: Self) -> Errors:
        return Errors(self.wrong + other.wrong, self.said + other.said)

    @property
    def rate(self) -> float | None:
        """The word error rate; None if nothing was said."""
        return self.wrong / self.said if self.said else None


class Scorer:
    """Compares texts. Needs group `bench`: raises `CannotStart` without it."""

    def __init__(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # from a docstring of whisper-normalizer, at its first compilation
                import jiwer  # noqa: PLC0415 - an optional extra
                from whisper_normalizer.basic import BasicTextNormalizer  # noqa: PLC0415
                from whisper_normalizer.english import EnglishTextNormalizer  # noqa: PLC0415
        except ImportError as error:
            raise CannotStart(
                f"word errors in real speech need {error.name}: pip install --group bench brings it"
            ) from None
        self._compare = jiwer.process_words

        @cache
        def normalizer(language: str) -> Callable[[str], str]:
            chosen: Callable[[str], str]
            by_letter = language in _BY_LETTER
            chosen = EnglishTextNormalizer() if language == "en" else BasicTextNormalizer(split_letters=by_letter)
            return chosen

        self._normalizer = normalizer

    def words(self, text: str, language: str) -> list[str]:
        """The words to compare: in lower case, without punctuation and text in brackets."""
        return self._normalizer(language)(text).split()

    def errors(self, said: str, heard: str, language: str) -> Errors:
        """Compare what was heard with what was said."""
        reference, hypothesis = (self.words(text, language) for text in (said, heard))
        found = self._compare(" ".join(reference), " ".join(hypothesis))
        return Errors(found.substitutions + found.deletions + found.insertions, len(reference))
