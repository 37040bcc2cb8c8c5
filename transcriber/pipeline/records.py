"""Puts one stream's fates into timeline order for storing, each with the checkpoint after it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from transcriber.domain.events import Ended, Flushed, Rejected, Replaced, Started, Suppressed
from transcriber.domain.records import Record
from transcriber.domain.timeline import SAMPLE_RATE, Account, Checkpoint, Fate, Gap, GapReason, Silence, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transcriber.audio.sessions import SessionOutput
    from transcriber.domain.chunks import AudioFormat
    from transcriber.domain.results import Transcript
    from transcriber.domain.timeline import Origin

LONGEST_SILENCE = 10 * SAMPLE_RATE  # after so much silence a record is due, so that silence has checkpoints too (P-23)


@dataclass(slots=True)
class _Entry:
    """An output that waits for the outputs before it. A window also waits for its result."""

    output: SessionOutput
    result: Transcript | Gap | None = None
    held: deque[Suppressed] = field(default_factory=deque)
    traceparent: str | None = None

    @property
    def session(self) -> str | None:
        output = self.output
        return output.session if isinstance(output, Rejected) else output.origin.session


class Records:
    """Takes outputs in order and results of windows in any order; gives out one record at a time, in order.

    `format_of` returns the audio format of a session's chunks.
    """

    def __init__(self, format_of: Callable[[Origin], AudioFormat | None], at: Checkpoint | None = None) -> None:
        self._format_of = format_of
        self._at = at
        self._waiting: deque[_Entry] = deque()
        self._windows: dict[tuple[str, int], _Entry] = {}
        self._silence: int | None = None  # where the silence began that is in no record yet
        self._newest = at.origin if at is not None else None
        self._next: Record | None = None

    @property
    def waiting(self) -> int:
        """The number of outputs that are in no record yet."""
        return len(self._waiting)

    @property
    def newest(self) -> Origin | None:
        """The session that began last, over or not. None before the first one."""
        return self._newest

    def add(self, output: SessionOutput) -> None:
        """Add one output of the stream's sessions."""
        entry = _Entry(output)
        if isinstance(output, Started):
            self._newest = output.origin
        if isinstance(output, Window):
            self._windows[output.origin.session, output.sequence] = entry
        if isinstance(output, Ended):
            self._waiting.insert(self._end_of(output.origin), entry)
        else:
            self._waiting.append(entry)

    def decide(
        self,
        window: Window,
        result: Transcript | Gap,
        held: Sequence[Suppressed] = (),
        traceparent: str | None = None,
    ) -> None:
        """Set the result of a window."""
        entry = self._windows.pop((window.origin.session, window.sequence))
        entry.result, entry.held, entry.traceparent = result, deque(held), traceparent

    def next(self) -> Record | None:
        """Return the next record to store, the same one until `stored` is called. None when none is ready."""
        while self._next is None and self._waiting:
            entry = self._waiting[0]
            if isinstance(entry.output, Window) and entry.result is None:
                break
            if entry.held:  # suppressed texts come before the final, which settles the window
                self._next = Record(entry.held.popleft(), self._at, entry.traceparent)
                break
            self._waiting.popleft()
            self._next = self._record(entry)
        return self._next

    def stored(self) -> None:
        """Note that the record from `next` is now in the transcript stream."""
        self._next = None

    def _end_of(self, origin: Origin) -> int:
        """Where a session's end belongs: before the start of the next one, whatever waits for earlier sessions.

        Sessions end when their last window is decided. That may be long after the next one began, or while windows of
        earlier ones are undecided.
        """
        starts = [(i, e.output.origin) for i, e in enumerate(self._waiting) if isinstance(e.output, Started)]
        own = next((i for i, started in starts if started == origin), -1)
        return next((i for i, _ in starts if i > own), len(self._waiting))

    def _record(self, entry: _Entry) -> Record | None:
        output = entry.output
        match output:
            case Window():
                assert entry.result is not None  # noqa: S101 - next() has checked it
                self._settle(output, entry.result.reason if isinstance(entry.result, Gap) else Fate.TRANSCRIBED)
                self._at = self._at and replace(self._at, sequence=output.sequence + 1)
                self._silence = None
                return Record(entry.result, self._at, entry.traceparent, output)
            case Silence():
                return self._quiet(output)
            case Gap():
                self._settle(output, output.reason)
                self._silence = None
            case Started():
                self._at, self._silence = self._first(output), None
            case Flushed() if self._at is not None and self._at.origin.session == output.origin.session:
                self._at = replace(self._at, cursor=output.cursor or self._at.cursor)
            case Ended():
                cursor = output.cursor
                self._at = self._at and replace(self._at, cursor=cursor or self._at.cursor, over=True)
            case Replaced(cursor=cursor) if cursor is not None:
                self._at = self._at and replace(self._at, cursor=cursor)
        return Record(output, self._at)

    def _first(self, started: Started) -> Checkpoint | None:
        if started.cursor is None or started.format is None:
            return None
        account = Account(received=0, transcribed=0, silent=0, gap={}, pending=0)
        return Checkpoint(
            origin=started.origin,
            requested_id=started.requested_id,
            format=started.format,
            position=started.position,
            sequence=0,
            account=account,
            cursor=started.cursor,
            older=started.older,
            used=started.used,
            declared=started.declared,
        )

    def _quiet(self, silence: Silence) -> Record | None:
        self._settle(silence, Fate.SILENT)
        begin = silence.start if self._silence is None else self._silence
        if silence.end - begin < LONGEST_SILENCE:
            self._silence = begin
            return None
        self._silence = None
        return Record(replace(silence, start=begin), self._at)

    def _settle(self, piece: Window | Silence | Gap, fate: Fate | GapReason) -> None:
        """Move the checkpoint to the end of the piece, and add the piece to the account."""
        at = self._at
        if at is None or piece.cursor is None:
            return
        length, account, gap = piece.end - piece.start, at.account, dict(at.account.gap)
        if isinstance(fate, GapReason):
            gap[fate] = gap.get(fate, 0) + length
        self._at = replace(
            at,
            origin=piece.origin,
            format=self._format_of(piece.origin) or at.format,
            position=piece.end,
            cursor=piece.cursor,
            account=Account(
                received=account.received + length,
                transcribed=account.transcribed + (length if fate is Fate.TRANSCRIBED else 0),
                silent=account.silent + (length if fate is Fate.SILENT else 0),
                gap=gap,
                pending=0,
            ),
        )
