"""Where source frames lie on a session's timeline, where they are stored, when they arrived, and their traces."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from transcriber.domain.chunks import Cursor
from transcriber.domain.timeline import SAMPLE_RATE

_MAX_LINKS = 128  # OpenTelemetry's default limit of links on one span
_ARRIVALS = SAMPLE_RATE // 10  # resolution of arrivals: at most 300 marks in 30 s, however small the chunks are


@dataclass(slots=True)
class Clock:
    """Places source frames of one rate on the timeline: frame f is at base + round((f - first) * 16000 / rate)."""

    rate: int
    base: int
    first: int
    next_frame: int

    def position(self, frame: int) -> int:
        return self.base + round((frame - self.first) * SAMPLE_RATE / self.rate)

    def first_frame_at(self, position: int) -> int:
        """The first frame at or after `position`."""
        frame = self.first + (position - self.base) * self.rate // SAMPLE_RATE - 1
        while self.position(frame) < position:
            frame += 1
        return frame


@dataclass(slots=True)
class Stored:
    """Where the stored messages of unsettled audio lie on the timeline."""

    start: Cursor | None = None  # of the session's first audio, or of where it was resumed
    marks: deque[tuple[int, int, Cursor]] = field(default_factory=deque)  # position, frame on the clock, cursor
    unanswered: bool = False  # the last message asks for a flush, and must be read again until that is answered

    def cursor_after(self, position: int, head: int, clock: Clock) -> Cursor | None:
        """Return the first stored frame at or after `position`, and forget the messages before it."""
        while len(self.marks) > 1 and self.marks[1][0] <= position:
            self.marks.popleft()
        if not self.marks:
            return self.start
        _, frame, cursor = self.marks[0]
        if position >= head:
            _, frame, last = self.marks[-1]
            if self.unanswered:
                return replace(last, frame=last.frame + clock.next_frame - frame)
            return Cursor(last.seq + 1, 0, last.mark)
        return replace(cursor, frame=cursor.frame + clock.first_frame_at(position) - frame)


class Arrivals:
    """When unsettled audio arrived, to a tenth of a second of audio."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, float]] = deque()  # (position of a chunk, when it arrived)

    def add(self, position: int, arrived: float | None) -> None:
        if arrived is not None and (not self._marks or position >= self._marks[-1][0] + _ARRIVALS):
            self._marks.append((position, arrived))

    def of(self, position: int) -> float | None:
        """When the audio at `position` arrived; None if unknown."""
        return next((arrived for begin, arrived in reversed(self._marks) if begin <= position), None)

    def forget(self, settled: int) -> None:
        while len(self._marks) > 1 and self._marks[1][0] <= settled:
            self._marks.popleft()


class Traces:
    """The trace contexts of chunks with unsettled audio."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, str]] = deque()  # (position of a chunk, its traceparent)

    def add(self, position: int, traceparent: str) -> None:
        if len(self._marks) < _MAX_LINKS:
            self._marks.append((position, traceparent))

    def overlapping(self, start: int, end: int, head: int) -> tuple[str, ...]:
        """The distinct traceparents of chunks that overlap [start, end), in order. The last chunk ends at `head`."""
        ends = [*(position for position, _ in self._marks), head][1:]
        return tuple(
            dict.fromkeys(
                trace for (begin, trace), stop in zip(self._marks, ends, strict=True) if begin < end and stop > start
            )
        )

    def forget(self, settled: int) -> None:
        while len(self._marks) > 1 and self._marks[1][0] <= settled:
            self._marks.popleft()

    def clear(self) -> None:
        self._marks.clear()
