"""What the status page shows: the last texts as they are told, all else read off the figures when somebody looks."""

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

Told = Transcript | Gap | Suppressed

_TEXTS = 20  # two minutes of one talker in windows of five seconds: as much as one reads when something looks wrong
_TEXT_CHARS = 600  # 30 s, the longest window, at twenty characters a second; bounds what a viewer is sent
_WINDOWS = 200  # latencies kept: with ten above it, the 95th percentile does not hang on one window
_BUSY_SECS = 10.0  # over which the worker's share is taken: a few windows, so that it does not flicker


@dataclass(frozen=True, slots=True, kw_only=True)
class PageState:
    """Where the daemon stands at this moment, beside what is counted."""

    state: str  # "ready", or what /readyz says instead
    version: str
    model: str
    max_latency: float | None  # seconds; None: nothing is promised
    snapshot: Snapshot
    streams: int  # with a session that has not ended
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

    def shown(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Overview:
    """Remembers a bounded number of texts and latencies; `view` makes the page's figures of them and of the tallies."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies
        self._numbers = count()
        self._texts: deque[_Line] = deque(maxlen=_TEXTS)
        self._losses: deque[_Line] = deque(maxlen=_TEXTS)  # apart: a storm of gaps does not push the texts out
        self._latencies: deque[Latency] = deque(maxlen=_WINDOWS)
        self._busy: deque[tuple[float, float]] = deque()  # when, and how long the engine had run

    def tell(self, told: Told, at: float) -> None:
        """Take what has become of a window, or of audio that was never in one."""
        number, stream = next(self._numbers), told.origin.stream
        start, end = told.start / SAMPLE_RATE, told.end / SAMPLE_RATE
        match told:
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
            "busy": self._share(now, snapshot.busy),
            "lag": lag if standing.lags else None,
            "latency": self._latency() | {"windows": len(self._latencies), "limit": standing.max_latency},
            "audio": _seconds(total) | {"pending": snapshot.pending},
            "drops": self._drops(),
            "active": standing.streams,
            "streams": [{"name": name, **_seconds(streams[name])} for name in sorted(streams)],
            "lines": [line.shown() for line in lines],
        }

    def _streams(self) -> dict[str, Counter[Hashable]]:
        """Samples by fate of every stream that has figures of its own, and of the others together."""
        streams: dict[str, Counter[Hashable]] = {}
        for (stream, fate), samples in self._tallies.audio.by_stream().items():
            streams.setdefault(stream, Counter())[fate] = samples
        return streams

    def _drops(self) -> list[dict[str, Any]]:
        """What was dropped, by reason: seconds of audio, windows, and messages. The worst come first."""
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

    def _share(self, now: float, busy: float) -> float | None:
        """The share of the last seconds in which the engine ran; None at the first look."""
        known = self._busy
        if known and now - known[-1][0] > _BUSY_SECS:  # nobody looked for a while
            known.clear()
        known.append((now, busy))
        while len(known) > 2 and now - known[1][0] >= _BUSY_SECS:  # noqa: PLR2004 - the oldest, and one to follow it
            known.popleft()
        then, before = known[0]
        return min(1.0, max(0.0, (busy - before) / (now - then))) if now > then else None


def _seconds(samples: Counter[Hashable]) -> dict[str, Any]:
    """Seconds by fate; what has no other is pending."""
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
    """The smallest value that at least this share of them does not exceed; None without any."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None


def shortened(text: str) -> str:
    """The text, cut where it is longer than the page shows."""
    return text if len(text) <= _TEXT_CHARS else text[: _TEXT_CHARS - 1] + "…"
