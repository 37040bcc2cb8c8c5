"""The text of a whole recording, joined from the answers to its pieces."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RecordedWord:
    """Bounds in seconds of the recording; confidence in [0, 1]."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSegment:
    """One stretch of text. Bounds in seconds of the recording."""

    text: str
    start: float
    end: float
    confidence: float
    words: tuple[RecordedWord, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordedGap:
    """[start, end) of the recording was not transcribed, in seconds, with the reason as in P-19 or an error code."""

    start: float
    end: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingText:
    """What a recording of `duration` seconds says. `processing`: seconds of the workers' time."""

    duration: float
    language: str
    model: str
    segments: tuple[RecordedSegment, ...]
    gaps: tuple[RecordedGap, ...] = ()
    processing: float = 0.0

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments)
