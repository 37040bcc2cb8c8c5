"""Counts for `benchmarks fidelity`, by recording and by kind, and makes its tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from benchmarks.report import seconds, table
from benchmarks.score import Errors, Scorer

if TYPE_CHECKING:
    from benchmarks.manifest import Row

_WAYS = ("daemon", "whole")


@dataclass(frozen=True, slots=True)
class Whole:
    """One recording, decoded at once. `cpu` in seconds."""

    text: str
    cpu: float


@dataclass(frozen=True, slots=True)
class Streamed:
    """The daemon's results for one recording. `finals`: seconds of window, and text. `gaps`: seconds by reason."""

    finals: tuple[tuple[float, str], ...]
    suppressed: tuple[str, ...]
    gaps: Mapping[str, float]
    cpu: float

    @classmethod
    def of(cls, told: Sequence[Mapping[str, Any]], cpu: float) -> Self:
        """Sort a session's messages, `ended` last."""
        finals = sorted((body for body in told if body["type"] == "final"), key=lambda body: body["sequence"])
        held = (body["text"] for body in told if body["type"] == "suppressed")
        windows = tuple((body["end"] - body["start"], body["text"]) for body in finals)
        return cls(windows, tuple(held), told[-1]["gap"], cpu)

    @property
    def text(self) -> str:
        return " ".join(text for _, text in self.finals if text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One recording, both ways. `errors` and `words` (recognised, normalised) by way; `fastest`: words a second."""

    row: Row
    streamed: Streamed
    whole: Whole | None
    errors: Mapping[str, Errors]
    words: Mapping[str, int]
    fastest: float

    @classmethod
    def of(cls, scorer: Scorer, row: Row, streamed: Streamed, whole: Whole | None) -> Self:
        """Compare the texts with what was said."""
        texts = {"daemon": streamed.text} | ({"whole": whole.text} if whole else {})
        said = row.text
        errors = {w: scorer.errors(said, text, row.language) for w, text in texts.items()} if said is not None else {}
        words = {way: len(scorer.words(text, row.language)) for way, text in texts.items()}
        speeds = (len(scorer.words(text, row.language)) / length for length, text in streamed.finals)
        fastest = max(speeds, default=0.0)
        return cls(row=row, streamed=streamed, whole=whole, errors=errors, words=words, fastest=fastest)

    def cpu(self, way: str) -> float | None:
        if way == "daemon":
            return self.streamed.cpu
        return self.whole.cpu if self.whole else None

    def figures(self) -> dict[str, Any]:
        """All figures, for JSON."""
        row, streamed = self.row, self.streamed
        return {
            "file": row.path.name,
            "kind": row.kind,
            "language": row.language,
            "seconds": row.seconds,
            "said": row.text,
            "daemon": {
                **self._way("daemon"),
                "text": streamed.text,
                "finals": len(streamed.finals),
                "fastest_words_a_second": self.fastest,
                "suppressed": streamed.suppressed,
                "gap_seconds": streamed.gaps,
            },
            "whole": {**self._way("whole"), "text": self.whole.text} if self.whole else None,
        }

    def _way(self, way: str) -> dict[str, Any]:
        errors = self.errors.get(way)
        return {
            "wer": errors.rate if errors else None,
            "wrong_words": errors.wrong if errors else None,
            "cpu_seconds_a_second": (self.cpu(way) or 0.0) / self.row.seconds,
        }


def figures(cases: Sequence[Case]) -> dict[str, Any]:
    """Count several recordings together. Those with a text and those without speech are separate."""
    spoken = [case for case in cases if case.row.text is not None]
    silent = [case for case in cases if case.row.text is None]
    ways = [way for way in _WAYS if all(way in case.words for case in cases)]
    audio = sum(case.row.seconds for case in cases)
    totals = {way: sum((case.errors[way] for case in spoken), Errors()) for way in ways}
    fastest = max(cases, key=lambda case: case.fastest)
    gaps: Counter[str] = Counter()
    for case in cases:
        gaps.update(case.streamed.gaps)
    return {
        "seconds": audio,
        "speech": {"files": len(spoken), "words": totals["daemon"].said},
        "wer": {way: total.rate for way, total in totals.items()},
        "no_speech": {
            "files": len(silent),
            "with_text": {way: sum(case.words[way] > 0 for case in silent) for way in ways},
        },
        "cpu_seconds_a_second": {way: sum(case.cpu(way) or 0.0 for case in cases) / audio for way in ways},
        "fastest": {"words_a_second": fastest.fastest, "file": fastest.row.path.name},
        "suppressed": sum(len(case.streamed.suppressed) for case in cases),
        "gap_seconds": dict(gaps),
    }


def tables(kinds: Mapping[str, Sequence[Case]], english: Sequence[Case], *, whole: bool) -> list[str]:
    """A table of speech by kind and all English speech, and a table of recordings without speech."""
    speech, silence = [], []
    for name, cases in (*kinds.items(), *((("all English", english),) if english else ())):
        f = figures(cases)
        ways = _WAYS if whole else _WAYS[:1]
        cost = [seconds(f["cpu_seconds_a_second"][way]) for way in ways]
        fastest = f"{f['fastest']['words_a_second']:.1f}"
        if f["speech"]["files"]:
            counts = [str(f["speech"][key]) for key in ("files", "words")]
            speech.append([name, *counts, *(seconds(f["wer"][way]) for way in ways), *cost, fastest])
        if f["no_speech"]["files"] and cases is not english:
            texts = [str(f["no_speech"]["with_text"][way]) for way in ways]
            silence.append([name, str(f["no_speech"]["files"]), *texts, *cost, fastest])
    head = ("WER daemon", "WER whole"), ("CPU s/s daemon", "whole"), ("with text: daemon", "whole")
    rates, costs, texts_head = (names if whole else names[:1] for names in head)
    found = []
    if speech:
        found.append(table(["kind", "files", "words", *rates, *costs, "fastest"], speech))
    if silence:
        found.append(table(["no speech", "files", *texts_head, *costs, "fastest"], silence))
    return found
