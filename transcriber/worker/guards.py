"""Tells text that was heard from text that was made up. Pure.

Whisper repeats itself, and signs off over silence. No single sign of that is proof (people do say "seven seven seven
seven" and "thank you"), so a segment is held back only when two signals agree.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

from transcriber.results import HeldBack, Recognition, Segment

if TYPE_CHECKING:
    from transcriber.messages import Window
    from transcriber.worker.engine import Decoded

LEAST_CONFIDENCE = math.exp(-1.0)  # Whisper's logprob_threshold of -1.0 as a probability
MOST_COMPRESSION = 2.4  # Whisper's compression_ratio_threshold
MOST_REPEATS = 4  # times one run of one to four words stands in a row; three happen in read-out numbers
LEAST_VOICED = 0.15  # share of voiced frames; the shortest word that opens a window, with its rolls, has more
MOST_WORDS_A_SECOND = 8.0  # of the whole window; fast speech has 5
_LONGEST_LOOP = 4  # words

# What Whisper writes over silence in English (its training subtitles end that way).
SIGN_OFFS = frozenset(
    {
        "bye",
        "bye bye",
        "please subscribe",
        "see you next time",
        "subscribe",
        "thank you",
        "thank you for watching",
        "thank you very much",
        "thanks for watching",
        "you",
    }
)


def review(window: Window, decoded: Decoded, model: str) -> Recognition:
    """Split what the engine returned into what is published and what is held back."""
    kept: list[Segment] = []
    held: list[HeldBack] = []
    for segment in decoded.segments:
        found = signals(segment, window)
        if len(found) > 1:
            held.append(HeldBack(segment, "+".join(found)))
        else:
            kept.append(segment)
    return Recognition(tuple(kept), decoded.language, model, tuple(held))


def doubtful(decoded: Decoded) -> bool:
    """Whether a pass with a reduced context is to be repeated with the whole: its text loops, or is not sure of itself.

    Those are the two ways in which a context that is too small shows (whisper.cpp #1117).
    """
    return any(
        s.confidence < LEAST_CONFIDENCE or loops(s.text.lower().split()) or compression(s.text) > MOST_COMPRESSION
        for s in decoded.segments
    )


def signals(segment: Segment, window: Window) -> list[str]:
    """Name every sign that the segment was made up."""
    words = segment.text.lower().split()
    plain = " ".join("".join(c for c in w if c.isalnum() or c == "'") for w in words)
    found = []
    if loops(words) or compression(segment.text) > MOST_COMPRESSION:
        found.append("repetition")
    if segment.confidence < LEAST_CONFIDENCE:
        found.append("low_confidence")
    if window.voiced < LEAST_VOICED:
        found.append("silence")
    if plain in SIGN_OFFS:
        found.append("sign_off")
    if len(words) > MOST_WORDS_A_SECOND * max(1.0, window.seconds):
        found.append("too_fast")
    return found


def compression(text: str) -> float:
    """Length over compressed length: high for text that repeats itself (Whisper, Radford et al. 2022, section 4.5)."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def loops(words: list[str]) -> bool:
    """Whether one run of up to four words stands at least MOST_REPEATS times in a row."""
    for size in range(1, _LONGEST_LOOP + 1):
        matches = 0  # words in a row that equal the word one run earlier
        for i in range(size, len(words)):
            matches = matches + 1 if words[i] == words[i - size] else 0
            if matches >= size * (MOST_REPEATS - 1):
                return True
    return False
