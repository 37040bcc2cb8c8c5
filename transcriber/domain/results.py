"""The text of a window: words, segments and transcripts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from transcriber.domain.timeline import SAMPLE_RATE, Closed, Origin


@dataclass(frozen=True, slots=True)
class Word:
    """Bounds in samples from the window's first sample; confidence in [0, 1]."""

    text: str
    start: int
    end: int
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One stretch of text as Whisper returned it. Bounds in samples from the window's first sample."""

    text: str
    start: int
    end: int
    confidence: float
    words: tuple[Word, ...] = ()

    def shifted(self, by: int) -> Segment:
        """The same segment, its bounds counted from `by` samples earlier."""
        words = tuple([replace(w, start=w.start + by, end=w.end + by) for w in self.words])
        return replace(self, start=self.start + by, end=self.end + by, words=words)


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A segment that the guards held back, and the signs that it was made up."""

    segment: Segment
    reason: str


@dataclass(frozen=True, slots=True)
class Recognition:
    """The result of decoding one window, after the guards."""

    segments: tuple[Segment, ...]
    language: str
    model: str
    held_back: tuple[HeldBack, ...] = ()

    @property
    def text(self) -> str:
        return " ".join(s.text for s in self.segments)

    @property
    def confidence(self) -> float:
        """Mean of the segments' confidences, weighted by their words; 0.0 without text."""
        weight = sum(max(1, len(s.words)) for s in self.segments)
        return sum(s.confidence * max(1, len(s.words)) for s in self.segments) / weight if weight else 0.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds in the queue, in the engine, and from try-put to publish."""

    queue: float
    processing: float
    end_to_end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """The text of [start, end) of a timeline, ready to publish. Segments count from `start`."""

    origin: Origin
    sequence: int
    start: int
    end: int
    recognition: Recognition
    latency: Latency
    closed: Closed | None = None  # None: its window is still open

    @property
    def rtf(self) -> float:
        """Real-time factor: processing time over the audio's length."""
        return self.latency.processing * SAMPLE_RATE / (self.end - self.start) if self.end > self.start else 0.0


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The text of an open window so far: the newest pass, the text to show, and the part that will not change."""

    transcript: Transcript
    text: str
    stable: str
