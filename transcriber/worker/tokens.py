"""Makes segments and words from an engine's tokens. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from transcriber.domain.results import Segment, Word
from transcriber.domain.timeline import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterator

TICK = SAMPLE_RATE // 100  # samples: whisper.cpp counts in 10 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """Bytes of text (a character may span tokens), bounds in ticks of 10 ms, log probability.

    `time`: of a timestamp token, in ticks from the window's first sample; None for text.
    """

    text: bytes
    start: int
    end: int
    log: float
    time: int | None = None


def segments(tokens: list[Token], length: int) -> tuple[Segment, ...]:
    """Return the text between timestamps as segments, with bounds within `length` samples. Empty ones are left out."""
    made = (_segment(phrase, length) for phrase in _phrases(tokens))
    # From a list, as a tuple from a generator is resized at the end. CPython keeps up to 2,000 of those for each
    # length, one more per window, which looks like a memory leak for hours.
    return tuple([segment for segment in made if segment.text])


@dataclass(slots=True)
class _Phrase:
    """Words between two timestamps. Bounds in ticks; None where the model gave no timestamp."""

    start: int | None = None
    end: int | None = None
    words: list[_Word] = field(default_factory=list)


def _phrases(tokens: list[Token]) -> Iterator[_Phrase]:
    phrase = _Phrase()
    for token in tokens:
        if token.time is None:
            if not phrase.words:  # start at the timestamp: whisper.cpp gives that token a share of the time
                phrase.words.append(_Word(b"", token.start if phrase.start is None else phrase.start, token.end, []))
            elif token.text.startswith(b" "):
                phrase.words.append(_Word(b"", token.start, token.end, []))
            phrase.words[-1].add(token.text, token.end, token.log)
        elif phrase.words:
            phrase.end = token.time
            yield phrase
            phrase = _Phrase(token.time)
        else:
            phrase.start = token.time
    if phrase.words:
        yield phrase


def _segment(phrase: _Phrase, length: int) -> Segment:
    logs = [log for word in phrase.words for log in word.logs]
    words = tuple([word.done(length) for word in phrase.words if word.text.strip()])
    text = b"".join(word.text for word in phrase.words).decode("utf-8", "replace").strip()
    start = _clamp(phrase.words[0].start if phrase.start is None else phrase.start, length)
    end = max(start, _clamp(phrase.words[-1].end if phrase.end is None else phrase.end, length))
    return Segment(text=text, start=start, end=end, confidence=geometric_mean(logs), words=words)


@dataclass(slots=True)
class _Word:
    """Tokens joined into one word: bytes, bounds in ticks, log probabilities."""

    text: bytes
    start: int
    end: int
    logs: list[float]

    def add(self, text: bytes, end: int, log: float) -> None:
        self.text += text
        self.end = end
        self.logs.append(log)

    def done(self, length: int) -> Word:
        start = _clamp(self.start, length)
        end = max(start, _clamp(self.end, length))
        return Word(self.text.decode("utf-8", "replace").strip(), start, end, geometric_mean(self.logs))


def _clamp(ticks: int, length: int) -> int:
    return min(max(ticks * TICK, 0), length)


def geometric_mean(logs: list[float]) -> float:
    """Return exp of the mean log probability, which is Whisper's own confidence. 0.0 without tokens."""
    return math.exp(sum(logs) / len(logs)) if logs else 0.0
