"""The text of a whole recording, joined from the answers to its parts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_TOLD = 50  # gaps in a header, which common servers and clients limit to 8 kB


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a recording is to be heard. `None` leaves a choice to the worker.

    `model` is the client's word for it. `each_channel`: a text for every channel, not one for their mix.
    """

    model: str = ""
    language: str | None = None
    prompt: str | None = None
    translate: bool = False
    each_channel: bool = False


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
    """What [start, end) of a recording says, in seconds. `processing`: seconds of the workers' time."""

    start: float = 0.0
    end: float
    language: str
    model: str
    segments: tuple[RecordedSegment, ...]
    gaps: tuple[RecordedGap, ...] = ()
    processing: float = 0.0

    @property
    def duration(self) -> float:
        return self.end - self.start

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments)

    @property
    def words(self) -> list[RecordedWord]:
        return [word for segment in self.segments for word in segment.words]


def heard(answer: Mapping[str, Any], start: float, end: float) -> RecordingText:
    """Read a worker's answer to the part [start, end), in the shape of a `final` (P-17).

    Raises `KeyError`, `TypeError` or `ValueError` for any other shape.
    """
    segments = tuple(_segment(segment, start) for segment in answer.get("segments", ()))
    if not segments and answer["text"]:  # too long an answer has lost its segments (P-21)
        confidence = float(answer["confidence"])
        segments = (RecordedSegment(text=str(answer["text"]), start=start, end=end, confidence=confidence),)
    return RecordingText(
        start=start,
        end=end,
        language=str(answer["language"]),
        model=str(answer["model"]),
        segments=segments,
        processing=float(answer["latency"]["processing"]),
    )


def unheard(start: float, end: float, reason: str) -> RecordingText:
    """The part [start, end), which could not be transcribed."""
    gap = RecordedGap(start, end, reason)
    return RecordingText(start=start, end=end, language="", model="", segments=(), gaps=(gap,))


def joined(parts: Iterable[RecordingText]) -> RecordingText:
    """Join the parts of a recording, in their order. The language is that of the most text."""
    each = list(parts)
    letters: dict[str, int] = {}
    for part in each:
        letters[part.language] = letters.get(part.language, 0) + len(part.text)
    return RecordingText(
        end=max((part.end for part in each), default=0.0),
        language=max(letters, key=lambda language: letters[language], default=""),
        model=", ".join({part.model: None for part in each if part.model}),
        segments=tuple(segment for part in each for segment in part.segments),
        gaps=_merged(gap for part in each for gap in part.gaps),
        processing=sum(part.processing for part in each),
    )


def gaps_header(gaps: Sequence[RecordedGap]) -> str:
    """The value of the header `x-transcriber-gaps`: `12.500-14.000;queue_full, ...`, in seconds."""
    told = [f"{gap.start:.3f}-{gap.end:.3f};{gap.reason}" for gap in gaps[:_TOLD]]
    if len(gaps) > _TOLD:
        told.append(f"and {len(gaps) - _TOLD} more")
    return ", ".join(told)


def gap_fields(gaps: Iterable[RecordedGap]) -> list[dict[str, Any]]:
    """The gaps as JSON."""
    return [{"start": gap.start, "end": gap.end, "reason": gap.reason} for gap in gaps]


def _merged(gaps: Iterable[RecordedGap]) -> tuple[RecordedGap, ...]:
    """Join gaps that follow each other for the same reason."""
    merged: list[RecordedGap] = []
    for gap in gaps:
        last = merged[-1] if merged else None
        if last is not None and (last.end, last.reason) == (gap.start, gap.reason):
            merged[-1] = RecordedGap(last.start, gap.end, gap.reason)
        else:
            merged.append(gap)
    return tuple(merged)


def _segment(fields: Mapping[str, Any], shift: float) -> RecordedSegment:
    return RecordedSegment(
        text=str(fields["text"]),
        start=float(fields["start"]) + shift,
        end=float(fields["end"]) + shift,
        confidence=float(fields["confidence"]),
        words=tuple(
            RecordedWord(str(w["word"]), float(w["start"]) + shift, float(w["end"]) + shift, float(w["confidence"]))
            for w in fields.get("words", ())
        ),
    )
