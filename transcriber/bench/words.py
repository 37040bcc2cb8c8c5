"""Word error rate."""

from __future__ import annotations

import re


def words(text: str) -> list[str]:
    """The words without capitals and punctuation."""
    return re.findall(r"[\w']+", text.lower())


def error_rate(said: str, heard: str) -> float:
    """Words inserted, deleted and substituted over words said (Levenshtein distance over words)."""
    reference, hypothesis = words(said), words(heard)
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, 1):
        before, row = row, [i]
        for j, other in enumerate(hypothesis, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (word != other)))
    return row[-1] / len(reference)
