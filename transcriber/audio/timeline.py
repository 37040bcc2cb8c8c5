"""Where source frames lie on a session's timeline, and where they are stored."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from transcriber.messages import SAMPLE_RATE, Cursor


@dataclass(slots=True)
class Clock:
    """Where source frames of one rate lie on the timeline: frame f is at base + round((f - first) * 16000 / rate)."""

    rate: int
    base: int
    first: int
    next_frame: int

    def position(self, frame: int) -> int:
        return self.base + round((frame - self.first) * SAMPLE_RATE / self.rate)

    def first_frame_at(self, position: int) -> int:
        """The first frame that does not lie before `position`."""
        frame = self.first + (position - self.base) * self.rate // SAMPLE_RATE - 1
        while self.position(frame) < position:
            frame += 1
        return frame


@dataclass(slots=True)
class Stored:
    """Where on the timeline the stored messages lie whose audio is not settled yet."""

    start: Cursor | None = None  # of the session's first audio, or of where it was resumed
    marks: deque[tuple[int, int, Cursor]] = field(default_factory=deque)  # position, frame on the clock, stored where

    def behind(self, position: int, head: int, clock: Clock) -> Cursor | None:
        """Return the first stored frame that does not lie before `position`; forget the messages before it."""
        while len(self.marks) > 1 and self.marks[1][0] <= position:
            self.marks.popleft()
        if not self.marks:
            return self.start
        _, frame, cursor = self.marks[0]
        if position >= head:
            return Cursor(self.marks[-1][2].seq + 1, 0)
        return Cursor(cursor.seq, cursor.frame + clock.first_frame_at(position) - frame)
