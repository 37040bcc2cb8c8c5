"""What an engine said, token by token, to segments and words. Pure."""

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
    """Bytes of text (a character may span tokens), bounds in 10 ms ticks, log probability.

    `time`: of a timestamp, in ticks from the window's first sample; None for text.
    """

    text: bytes
    start: int
    end: int
    log: float
    time: int | None = None


def segments(tokens: list[Token], length: int) -> tuple[Segment, ...]:
    """What lies between timestamps, with bounds inside a window of `length` samples; empty ones are left out."""
    made = (_segment(piece, length) for piece in _pieces(tokens))
    # Not of a generator: such a tuple is cut to its length afterwards, and CPython then keeps up to 2,000 of each
    # length for later, one more a window: memory that looks like a leak for the first hours.
    return tuple([segment for segment in made if segment.text])


@dataclass(slots=True)
class _Piece:
    """Words between two timestamps, which are in ticks; None where the model gave none."""

    start: int | None = None
    end: int | None = None
    words: list[_Word] = field(default_factory=list)


def _pieces(tokens: list[Token]) -> Iterator[_Piece]:
    piece = _Piece()
    for token in tokens:
        if token.time is None:
            if not piece.words:  # whisper.cpp gives the timestamp in front of it a share of the time
                piece.words.append(_Word(b"", token.start if piece.start is None else piece.start, token.end, []))
            elif token.text.startswith(b" "):
                piece.words.append(_Word(b"", token.start, token.end, []))
            piece.words[-1].add(token.text, token.end, token.log)
        elif piece.words:
            piece.end = token.time
            yield piece
            piece = _Piece(token.time)
        else:
            piece.start = token.time
    if piece.words:
        yield piece


def _segment(piece: _Piece, length: int) -> Segment:
    logs = [log for word in piece.words for log in word.logs]
    words = tuple([word.done(length) for word in piece.words if word.text.strip()])
    text = b"".join(word.text for word in piece.words).decode("utf-8", "replace").strip()
    start = _clamp(piece.words[0].start if piece.start is None else piece.start, length)
    end = max(start, _clamp(piece.words[-1].end if piece.end is None else piece.end, length))
    return Segment(text=text, start=start, end=end, confidence=geometric_mean(logs), words=words)


@dataclass(slots=True)
class _Word:
    """Tokens gathered into one word: bytes, 10 ms ticks, log probabilities."""

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
    """Return exp of the mean log probability: Whisper's own measure of how sure it was. 0.0 without tokens."""
    return math.exp(sum(logs) / len(logs)) if logs else 0.0
