"""Collects what the status page shows. Texts are remembered as they come; figures are read when a viewer asks."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from transcriber.domain.events import Suppressed
from transcriber.domain.results import Latency, Transcript
from transcriber.domain.timeline import SAMPLE_RATE, Fate, Gap, GapReason

if TYPE_CHECKING:
    from transcriber.domain.measurements import Snapshot, Tallies

PageEntry = Transcript | Gap | Suppressed

_TEXTS = 20  # two minutes of one speaker in windows of five seconds: enough to see what is wrong
_TEXT_CHARS = 600  # 30 s, the longest window, at twenty characters a second; limits the size of a message
_WINDOWS = 200  # latencies kept: ten lie above the 95th percentile, so one window does not decide it
_BUSY_SECS = 10.0  # over which the worker's busy share is averaged: a few windows, so that it does not flicker


@dataclass(frozen=True, slots=True, kw_only=True)
class PageState:
    """The daemon's state at this moment, apart from the counters."""

    state: str  # "ready", or what /readyz says instead
    version: str
    model: str
    max_latency: float | None  # seconds; None: nothing is promised
    snapshot: Snapshot
    streams: int  # streams with a session that has not ended
    lags: bool = False  # audio is stored, so there is a lag to show


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One row of the list of texts. Start and end in seconds of its session; `at` in seconds since 1970."""

    number: int
    at: float
    kind: str
    stream: str
    start: float
    end: float
    text: str = ""
    reason: str = ""
    latency: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Overview:
    """Remembers a bounded number of texts and latencies. `view` makes the page's figures from them and the tallies."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies
        self._numbers = count()
        self._texts: deque[_Line] = deque(maxlen=_TEXTS)
        self._losses: deque[_Line] = deque(maxlen=_TEXTS)  # kept apart, so that many gaps do not push the texts out
        self._latencies: deque[Latency] = deque(maxlen=_WINDOWS)
        self._busy: deque[tuple[float, float]] = deque()  # time of a view, and the engine's running time by then

    def add(self, entry: PageEntry, at: float) -> None:
        """Take the result of a window, or a gap outside any window. `at` in seconds since 1970."""
        number, stream = next(self._numbers), entry.origin.stream
        start, end = entry.start / SAMPLE_RATE, entry.end / SAMPLE_RATE
        match entry:
            case Transcript(recognition=recognition, latency=latency):
                self._latencies.append(latency)
                text, took = shortened(recognition.text), latency.end_to_end
                self._texts.append(
                    _Line(
                        number=number, at=at, kind="final", stream=stream, start=start, end=end, text=text, latency=took
                    )
                )
            case Suppressed(reason=reason, text=text):
                self._losses.append(
                    _Line(
                        number=number,
                        at=at,
                        kind="suppressed",
                        stream=stream,
                        start=start,
                        end=end,
                        text=shortened(text),
                        reason=reason,
                    )
                )
            case Gap(reason=reason):
                self._losses.append(
                    _Line(number=number, at=at, kind="gap", stream=stream, start=start, end=end, reason=reason.value)
                )

    def view(self, standing: PageState, now: float) -> dict[str, Any]:
        """Everything that the page shows, ready for JSON; `now` on the monotonic clock. All durations in seconds."""
        snapshot, streams = standing.snapshot, self._streams()
        total = sum(streams.values(), Counter[Hashable]())
        lines = sorted((*self._texts, *self._losses), key=lambda line: line.number, reverse=True)
        lag = {"chunks": snapshot.lag_chunks, "seconds": snapshot.lag_seconds}
        return {
            "state": standing.state,
            "version": standing.version,
            "model": standing.model,
            "queue": {"depth": snapshot.queue_depth, "capacity": snapshot.queue_capacity},
            "rtf": snapshot.rtf,
            "busy": self._busy_share(now, snapshot.busy),
            "lag": lag if standing.lags else None,
            "latency": self._latency() | {"windows": len(self._latencies), "limit": standing.max_latency},
            "audio": _seconds(total) | {"pending": snapshot.pending},
            "drops": self._drops(),
            "active": standing.streams,
            "streams": [{"name": name, **_seconds(streams[name])} for name in sorted(streams)],
            "lines": [line.as_dict() for line in lines],
        }

    def _streams(self) -> dict[str, Counter[Hashable]]:
        """Return samples by fate for each stream with figures of its own, and for all others together."""
        streams: dict[str, Counter[Hashable]] = {}
        for (stream, fate), samples in self._tallies.audio.by_stream().items():
            streams.setdefault(stream, Counter())[fate] = samples
        return streams

    def _drops(self) -> list[dict[str, Any]]:
        """List what was dropped, by reason: seconds of audio, windows, and messages. The largest loss comes first."""
        counted: dict[str, Counter[str]] = {}
        t = self._tallies
        for name, tally in (("audio", t.audio), ("windows", t.jobs_dropped), ("chunks", t.chunks_dropped)):
            for (_, reason), n in tally.by_stream().items():
                if name != "audio" or isinstance(reason, GapReason):
                    counted.setdefault(str(reason), Counter())[name] += n
        rows = [
            {"reason": reason, "seconds": n["audio"] / SAMPLE_RATE, "windows": n["windows"], "chunks": n["chunks"]}
            for reason, n in counted.items()
        ]
        return sorted(rows, key=lambda row: (-row["seconds"], -row["chunks"], row["reason"]))

    def _latency(self) -> dict[str, list[float | None]]:
        return {
            name: [percentile([getattr(latency, name) for latency in self._latencies], share) for share in (0.5, 0.95)]
            for name in ("queue", "processing", "end_to_end")
        }

    def _busy_share(self, now: float, busy: float) -> float | None:
        """Return the share of the last seconds in which the engine ran; None in the first view."""
        known = self._busy
        if known and now - known[-1][0] > _BUSY_SECS:  # there was no viewer for a while
            known.clear()
        known.append((now, busy))
        while len(known) > 2 and now - known[1][0] >= _BUSY_SECS:  # noqa: PLR2004 - keep the oldest and its successor
            known.popleft()
        then, before = known[0]
        return min(1.0, max(0.0, (busy - before) / (now - then))) if now > then else None


def _seconds(samples: Counter[Hashable]) -> dict[str, Any]:
    """Convert samples by fate to seconds; audio without a fate is pending."""
    gap = {fate.value: n for fate, n in samples.items() if isinstance(fate, GapReason)}
    pending = samples["received"] - samples[Fate.TRANSCRIBED] - samples[Fate.SILENT] - sum(gap.values())
    return {
        "received": samples["received"] / SAMPLE_RATE,
        "transcribed": samples[Fate.TRANSCRIBED] / SAMPLE_RATE,
        "silent": samples[Fate.SILENT] / SAMPLE_RATE,
        "gap": {reason: n / SAMPLE_RATE for reason, n in sorted(gap.items())},
        "pending": pending / SAMPLE_RATE,
    }


def percentile(values: list[float], share: float) -> float | None:
    """Return the smallest value that at least this share of the values does not exceed; None without any."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None


def shortened(text: str) -> str:
    """Cut a text to the length that the page shows."""
    return text if len(text) <= _TEXT_CHARS else text[: _TEXT_CHARS - 1] + "…"
