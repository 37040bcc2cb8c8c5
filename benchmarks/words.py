"""Counts word errors on the bundled recording. Its texts are plain words, so nothing has to be installed."""

from __future__ import annotations

import re

from benchmarks.score import Errors


def words(text: str) -> list[str]:
    """The words in lower case, without punctuation."""
    return re.findall(r"[\w']+", text.lower())


def errors(said: str, heard: str) -> Errors:
    """Words inserted, deleted and substituted, and words said (Levenshtein distance over words)."""
    reference, hypothesis = words(said), words(heard)
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, 1):
        before, row = row, [i]
        for j, other in enumerate(hypothesis, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (word != other)))
    return Errors(row[-1], len(reference))
