"""One session's timeline: turns chunks into windows, silences and gaps that tile it without overlap."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

from transcriber.audio.intake import Intake
from transcriber.audio.metadata import WindowMetadata
from transcriber.audio.recent import RecentAudio
from transcriber.audio.segmenter import Segmenter, Span, StreamOptions
from transcriber.audio.timeline import Clock, Stored
from transcriber.domain.chunks import AudioFormat, Chunk, ChunkEvent, Cursor
from transcriber.domain.measurements import Counts
from transcriber.domain.timeline import SAMPLE_RATE, Checkpoint, Closed, Gap, GapReason, Origin, Silence, Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transcriber.domain.chunks import Preferences

TimelineItem = Window | Silence | Gap

# Chunks gather as long as that delays nothing. A call into soxr and NumPy costs as much as their work on 20 ms of
# audio. This bounds them for any format: 0.68 s of 48 kHz s16 mono.
_GATHERED_BYTES = 65_536


class AudioStream:
    """Decodes, resamples and segments the chunks of one session.

    The timeline starts at the first chunk's offset. `head` is the end of the received audio, holes included: n frames
    at rate r are round(n * 16000 / r) samples. The windows do not depend on how the PCM is split into chunks.
    """

    def __init__(self, origin: Origin, options: StreamOptions, first: Chunk) -> None:
        self._metadata = WindowMetadata(origin)
        self.counts = Counts()
        self._format = first.format
        offset = first.offset or 0
        self._clock = Clock(first.format.rate, 0, 0, offset)
        self.start = self.head = self._clock.position(offset)
        self._raw: list[bytes | memoryview] = []  # gathered chunks in `_format`
        self._raw_bytes = 0  # in `_raw`
        self._early: list[TimelineItem] = []  # decided by `peek`; returned with the next chunk
        self._intake = Intake(first.format, self.counts)
        self._given = 0  # samples that the run must have given up to the head
        self._segmenter = Segmenter(
            options.segmentation, options.window_samples, options.detector(), self.start, options.pause_frames
        )
        self._due = 0  # bytes that may gather
        self._plan()
        self._recent = RecentAudio()
        self._stored = Stored(first.cursor)

    @classmethod
    def resumed(cls, at: Checkpoint, options: StreamOptions) -> Self:
        """Continue a session from a checkpoint."""
        stream = cls(at.origin, options, Chunk(at.origin.stream, at.format, b"", cursor=at.cursor))
        stream._clock = Clock(at.format.rate, at.position, 0, 0)
        stream.start = stream.head = at.position
        stream._segmenter.jump(at.position)
        stream._plan()
        stream._metadata.sequence = at.sequence
        return stream

    @property
    def origin(self) -> Origin:
        """The stream, session and tenant."""
        return self._metadata.origin

    @property
    def preferences(self) -> Preferences:
        """What its producer has asked for so far."""
        return self._metadata.preferences

    @property
    def format(self) -> AudioFormat:
        """The present format of its chunks."""
        return self._format

    @property
    def cursor(self) -> Cursor | None:
        """Where the stored audio after the head begins; None for live audio."""
        return self._cursor_after(self.head)

    @property
    def buffered(self) -> int:
        """Samples before the head that are in no window, silence or gap yet."""
        return self.head - self._segmenter.settled

    @property
    def sequence(self) -> int:
        """Number of the next window."""
        return self._metadata.sequence

    @property
    def open_samples(self) -> int:
        """Samples in the open window, 0 if none is open."""
        return self.head - self._segmenter.settled if self._segmenter.open_samples else 0

    @property
    def speech_start(self) -> int | None:
        """Where the open window begins; None if none with speech is open."""
        return self._segmenter.speech_start

    def peek(self) -> Window | None:
        """Return the open window so far, with the sequence that it will have; None if none is open."""
        if not self._segmenter.open_samples:
            return None
        self._early += self._digest()
        span = self._segmenter.peek()
        if span is None or span.samples is None:
            return None
        return self._metadata.window(span, span.samples, self.head)

    def locate(self, chunk: Chunk) -> int:
        """Position of the chunk's first frame on the timeline, in samples. Without an offset: the head."""
        if chunk.offset is None:
            return self.head
        return round(chunk.offset * SAMPLE_RATE / chunk.format.rate)

    def adopt(self, chunk: Chunk) -> Chunk:
        """Return a chunk without audio in this session's format, which it must not change (P-6)."""
        if chunk.format == self._format:
            return chunk
        offset = chunk.offset
        if offset is not None and chunk.names_rate:
            offset = round(offset * self._format.rate / chunk.format.rate)
        return replace(chunk, format=self._format, offset=offset)

    def differs(self, chunk: Chunk) -> bool:
        """Whether other audio was heard at the chunk's place; False if that is not remembered."""
        if chunk.offset is None or not chunk.pcm:
            return False
        self._early += self._digest()
        return self._recent.differs(chunk.format, chunk.offset, chunk.pcm)

    def push(self, chunk: Chunk, hole: GapReason = GapReason.LOST_UPSTREAM) -> list[TimelineItem]:
        """Take one chunk. `hole`: the reason for a hole before it. Audio before the head is trimmed."""
        if self._metadata.hear(chunk):
            self._segmenter.prefer(eager=bool(self.preferences.speech), pause_secs=self.preferences.pause)
            self._plan()
        items = self._take_early()
        frames = chunk.frames
        overlap = self._place(chunk, frames, hole, items)
        if overlap >= frames:
            return items
        self._metadata.mark(chunk, self.head)
        self._mark(chunk, overlap)
        raw = memoryview(chunk.pcm)[overlap * chunk.format.frame_bytes :] if overlap else chunk.pcm
        self._raw.append(raw)
        self._raw_bytes += len(raw)
        self._advance(frames - overlap)
        if self._raw_bytes >= self._due:
            items += self._digest()
        return items

    def skip(self, chunk: Chunk, frames: int, reason: GapReason, hole: GapReason) -> list[TimelineItem]:
        """Account for `frames` frames of a chunk without its samples. `hole` as in `push`."""
        items = self._take_early()
        overlap = self._place(chunk, frames, hole, items)
        if overlap >= frames:
            return items
        items += self.flush(Closed.LENGTH)
        before = self.head
        self._mark(chunk, overlap)
        self._advance(frames - overlap)
        return items + self._hole(before, reason)

    def flush(self, closed: Closed = Closed.END) -> list[TimelineItem]:
        """Decide all buffered audio: close the open window, for the given reason, and end the intake's run."""
        items = self._take_early()
        if not self._given:
            return items
        items += self._digest()
        items += self._wrap(self._segmenter.push(self._intake.end(self._given)))
        items += self._wrap(self._segmenter.flush(closed))
        self._given = 0
        self._metadata.traces.clear()
        self._plan()
        return items

    def answered(self, chunk: Chunk, frames: int) -> Cursor | None:
        """Note that a chunk's flush is done. Returns where the stored audio after it begins."""
        if chunk.cursor is not None:
            done = replace(chunk.cursor, frame=chunk.cursor.frame + frames)
            self._stored.marks.append((self.head, self._clock.next_frame, done))
            self._stored.unanswered = False
        return self.cursor

    def _digest(self) -> list[TimelineItem]:
        """Decode, mix, resample and segment the gathered chunks."""
        if not self._raw:
            return []
        raw = b"".join(self._raw)
        if not self._clock.base:  # else its frames' offsets are unknown
            self._recent.add(self._format, self._clock.next_frame - len(raw) // self._format.frame_bytes, raw)
        spans = self._segmenter.push(self._intake.push(raw))
        if not self._segmenter.speaking and all(span.samples is None for span in spans):
            self.counts.filtered += len(self._raw)
        self._raw, self._raw_bytes = [], 0
        self._plan()
        return list(self._wrap(spans))

    def _plan(self) -> None:
        """Set how many bytes may gather next."""
        of_patience = self._segmenter.patience * self._format.rate * self._format.frame_bytes // SAMPLE_RATE
        self._due = min(_GATHERED_BYTES, of_patience)

    def _take_early(self) -> list[TimelineItem]:
        early, self._early = self._early, []
        return early

    def _mark(self, chunk: Chunk, overlap: int) -> None:
        """Note where a chunk is stored whose frames after `overlap` are taken now."""
        if chunk.cursor is not None:
            cursor = replace(chunk.cursor, frame=chunk.cursor.frame + overlap)
            self._stored.marks.append((self.head, self._clock.next_frame, cursor))
            self._stored.unanswered = chunk.event is ChunkEvent.FLUSH

    def _cursor_after(self, position: int) -> Cursor | None:
        return self._stored.cursor_after(position, self.head, self._clock)

    def _advance(self, frames: int) -> None:
        before = self.head
        self._clock.next_frame += frames
        self.head = self._clock.position(self._clock.next_frame)
        self._given += self.head - before

    def _place(self, chunk: Chunk, frames: int, hole: GapReason, items: list[TimelineItem]) -> int:
        """Move the clock to the chunk's first frame, and append the items that end there. Returns frames to trim."""
        rounded = 0
        if chunk.format != self._format or (chunk.offset is not None and self._clock.base):
            items += self._change_clock(chunk)
            rounded = chunk.format.rate // 1000  # a change of clock may round by up to a millisecond
        clock = self._clock
        if chunk.offset is None or chunk.offset == clock.next_frame:
            return 0
        if (overlap := clock.next_frame - chunk.offset) > 0:
            if overlap > rounded:
                self.counts.trimmed += min(overlap, frames)
            return overlap
        items += self.flush(Closed.LENGTH)
        before = self.head
        clock.next_frame = chunk.offset
        self.head = clock.position(chunk.offset)
        items += self._hole(before, hole)
        return 0

    def _change_clock(self, chunk: Chunk) -> list[TimelineItem]:
        """Continue in the chunk's format, from the same instant of the timeline."""
        rate, same_rate = chunk.format.rate, chunk.format.rate == self._format.rate
        clock = Clock(rate, 0, 0, 0)
        # Rounding one instant to two frame grids can leave a hole of less than a frame, in which nothing was lost. The
        # old run's end is padded up to it.
        if chunk.offset is not None and 0 < clock.position(chunk.offset) - self.head <= 1 + SAMPLE_RATE // rate:
            self._given += clock.position(chunk.offset) - self.head
            self.head = clock.position(chunk.offset)
        items = self._digest()
        items += self.flush(Closed.LENGTH)
        self._format, self._intake = chunk.format, Intake(chunk.format, self.counts)
        if chunk.offset is not None:
            clock.next_frame = clock.first_frame_at(self.head)
            self._clock = clock
        elif not same_rate:
            self._clock = Clock(rate, self.head, 0, 0)
        self._plan()
        return items

    def _hole(self, start: int, reason: GapReason) -> list[TimelineItem]:
        """Settle [start, head) as a gap. Flush everything before it first."""
        self._given = 0
        if self.head == start:
            return []
        self._segmenter.jump(self.head)
        return [
            Gap(origin=self.origin, start=start, end=self.head, reason=reason, cursor=self._cursor_after(self.head))
        ]

    def _wrap(self, spans: list[Span]) -> Iterator[TimelineItem]:
        for span in spans:
            if span.samples is None:
                yield Silence(self.origin, span.start, span.end, self._cursor_after(span.end))
            else:
                window = self._metadata.window(span, span.samples, self.head)
                yield replace(window, cursor=self._cursor_after(span.end))
                self._metadata.sequence += 1
        self._metadata.forget(self._segmenter.settled)
