"""One session's timeline: chunks in, windows, silences and gaps out, tiling it without overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from transcriber.audio.heard import Heard
from transcriber.audio.intake import Intake
from transcriber.audio.known import Known
from transcriber.audio.segmenter import END_OF_SPEECH, Segmentation, Segmenter, Span
from transcriber.audio.timeline import Clock, Stored
from transcriber.audio.vad import FRAME, WebRtcDetector
from transcriber.domain.chunks import AudioFormat, Chunk, Cursor
from transcriber.domain.measurements import Counts
from transcriber.domain.timeline import SAMPLE_RATE, Checkpoint, Gap, GapReason, Origin, Silence, Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transcriber.audio.vad import SpeechDetector

Piece = Window | Silence | Gap

# Chunks gather for as long as that delays nothing: a call into soxr and NumPy costs as much as 20 ms of its work. But
# no more of them than this, 0.68 s of 48 kHz s16 mono, however wide the format is.
_GATHERED_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How audio becomes windows.

    `window_secs`: the longest window. `pause_secs`: the pause that closes a window of a word or two; a longer window
    closes after a shorter one, down to 0.48 s. Both in seconds.
    """

    segmentation: Segmentation = Segmentation.UTTERANCE
    window_secs: float = 5.0
    vad_aggressiveness: int = 2
    pause_secs: float = END_OF_SPEECH * FRAME / SAMPLE_RATE

    @property
    def window_samples(self) -> int:
        return round(self.window_secs * SAMPLE_RATE)

    @property
    def pause_frames(self) -> int:
        return round(self.pause_secs * SAMPLE_RATE / FRAME)

    def detector(self) -> SpeechDetector:
        return WebRtcDetector(self.vad_aggressiveness)


class AudioStream:
    """Decodes, resamples, segments and VAD-filters the chunks of one session.

    The timeline starts at the first chunk's offset. `head` is the end of what arrived, holes included: n frames at rate
    r are round(n * 16000 / r) samples. Any split of the same PCM into chunks yields the same windows.
    """

    def __init__(self, origin: Origin, options: StreamOptions, first: Chunk) -> None:
        self._known = Known(origin)
        self._counts = Counts()
        self._format = first.format
        offset = first.offset or 0
        self._clock = Clock(first.format.rate, 0, 0, offset)
        self.start = self.head = self._clock.position(offset)
        self._raw: list[bytes | memoryview] = []  # chunks in `_format` that have gathered
        self._raw_bytes = 0  # theirs
        self._early: list[Piece] = []  # what a look has decided, to be given out with the next chunk
        self._intake = Intake(first.format, self._counts)
        self._given = 0  # samples that its run owes up to the head
        self._segmenter = Segmenter(
            options.segmentation, options.window_samples, options.detector(), self.start, options.pause_frames
        )
        self._due = 0  # bytes that may gather
        self._plan()
        self._heard = Heard()
        self._stored = Stored(first.cursor)

    @classmethod
    def resumed(cls, at: Checkpoint, options: StreamOptions) -> Self:
        """Go on with a session from a checkpoint."""
        stream = cls(at.origin, options, Chunk(at.origin.stream, at.format, b"", cursor=at.cursor))
        stream._clock = Clock(at.format.rate, at.position, 0, 0)
        stream.start = stream.head = at.position
        stream._segmenter.jump(at.position)
        stream._plan()
        stream._known.sequence = at.sequence
        return stream

    @property
    def origin(self) -> Origin:
        """Whose it is."""
        return self._known.origin

    @property
    def format(self) -> AudioFormat:
        """What its chunks are at present."""
        return self._format

    @property
    def cursor(self) -> Cursor | None:
        """Where the stored audio after the head begins."""
        return self._cursor_after(self.head)

    @property
    def buffered(self) -> int:
        """Samples up to the head that are in no window, silence or gap yet."""
        return self.head - self._segmenter.settled

    @property
    def sequence(self) -> int:
        """Number of the next window."""
        return self._known.sequence

    @property
    def open_samples(self) -> int:
        """Length of the window that is open, 0 while none is."""
        return self.head - self._segmenter.settled if self._segmenter.open_samples else 0

    def peek(self) -> Window | None:
        """Return the open window as it stands; its sequence is the one that it will have. None while none is open."""
        if not self._segmenter.open_samples:
            return None
        self._early += self._digest()
        span = self._segmenter.peek()
        if span is None or span.samples is None:
            return None
        return self._known.window(span, span.samples, self.head)

    def take_counts(self) -> Counts | None:
        """What was noticed in the audio since the last call; None if nothing was."""
        return self._counts.take()

    def locate(self, chunk: Chunk) -> int:
        """Where the chunk's first frame lies on the timeline, in samples; the head when it does not say."""
        if chunk.offset is None:
            return self.head
        return round(chunk.offset * SAMPLE_RATE / chunk.format.rate)

    def adopt(self, chunk: Chunk) -> Chunk:
        """A chunk without audio as one of this session's format, which it does not change (P-6)."""
        if chunk.format == self._format:
            return chunk
        offset = chunk.offset
        if offset is not None and chunk.names_rate:
            offset = round(offset * self._format.rate / chunk.format.rate)
        return replace(chunk, format=self._format, offset=offset)

    def differs(self, chunk: Chunk) -> bool:
        """Whether other audio than this chunk's has been heard in its place; False where nobody knows."""
        if chunk.offset is None or not chunk.pcm:
            return False
        self._early += self._digest()
        return self._heard.differs(chunk.format, chunk.offset, chunk.pcm)

    def push(self, chunk: Chunk, hole: GapReason = GapReason.LOST_UPSTREAM) -> list[Piece]:
        """Take one chunk; `hole` says what to call a hole in front of it. Audio before the head is trimmed."""
        self._known.hear(chunk)
        pieces = self._take_early()
        frames = chunk.frames
        overlap = self._place(chunk, frames, hole, pieces)
        if overlap >= frames:
            return pieces
        self._known.mark(chunk, self.head)
        self._mark(chunk, overlap)
        raw = memoryview(chunk.pcm)[overlap * chunk.format.frame_bytes :] if overlap else chunk.pcm
        self._raw.append(raw)
        self._raw_bytes += len(raw)
        self._advance(frames - overlap)
        if self._raw_bytes >= self._due:
            pieces += self._digest()
        return pieces

    def skip(self, chunk: Chunk, frames: int, reason: GapReason, hole: GapReason) -> list[Piece]:
        """Account for `frames` frames of a chunk whose samples are not to be had; `hole` as in `push`."""
        pieces = self._take_early()
        overlap = self._place(chunk, frames, hole, pieces)
        if overlap >= frames:
            return pieces
        pieces += self.flush()
        before = self.head
        self._mark(chunk, overlap)
        self._advance(frames - overlap)
        return pieces + self._hole(before, reason)

    def flush(self) -> list[Piece]:
        """Settle all that is buffered: close the open window, end the intake's run."""
        pieces = self._take_early()
        if not self._given:
            return pieces
        pieces += self._digest()
        pieces += self._wrap(self._segmenter.push(self._intake.end(self._given)))
        pieces += self._wrap(self._segmenter.flush())
        self._given = 0
        self._known.traces.clear()
        self._plan()
        return pieces

    def _digest(self) -> list[Piece]:
        """Decode, mix, resample and segment the chunks that have gathered."""
        if not self._raw:
            return []
        raw = b"".join(self._raw)
        if not self._clock.base:  # else nobody knows which offsets its frames have
            self._heard.add(self._format, self._clock.next_frame - len(raw) // self._format.frame_bytes, raw)
        spans = self._segmenter.push(self._intake.push(raw))
        if not self._segmenter.speaking and all(span.samples is None for span in spans):
            self._counts.filtered += len(self._raw)
        self._raw, self._raw_bytes = [], 0
        self._plan()
        return list(self._wrap(spans))

    def _plan(self) -> None:
        """Decide how much may gather next."""
        of_patience = self._segmenter.patience * self._format.rate * self._format.frame_bytes // SAMPLE_RATE
        self._due = min(_GATHERED_BYTES, of_patience)

    def _take_early(self) -> list[Piece]:
        early, self._early = self._early, []
        return early

    def _mark(self, chunk: Chunk, overlap: int) -> None:
        """Note where the chunk, whose frames after `overlap` are taken now, is stored."""
        if chunk.cursor is not None:
            cursor = replace(chunk.cursor, frame=chunk.cursor.frame + overlap)
            self._stored.marks.append((self.head, self._clock.next_frame, cursor))

    def _cursor_after(self, position: int) -> Cursor | None:
        return self._stored.cursor_after(position, self.head, self._clock)

    def _advance(self, frames: int) -> None:
        before = self.head
        self._clock.next_frame += frames
        self.head = self._clock.position(self._clock.next_frame)
        self._given += self.head - before

    def _place(self, chunk: Chunk, frames: int, hole: GapReason, pieces: list[Piece]) -> int:
        """Bring the clock to the chunk's first frame; `pieces` gets what that settles. Returns frames that overlap."""
        rounded = 0
        if chunk.format != self._format or (chunk.offset is not None and self._clock.base):
            pieces += self._change_clock(chunk)
            rounded = chunk.format.rate // 1000  # less than a millisecond is what a change of clock rounds
        clock = self._clock
        if chunk.offset is None or chunk.offset == clock.next_frame:
            return 0
        if (overlap := clock.next_frame - chunk.offset) > 0:
            if overlap > rounded:
                self._counts.trimmed += min(overlap, frames)
            return overlap
        pieces += self.flush()
        before = self.head
        clock.next_frame = chunk.offset
        self.head = clock.position(chunk.offset)
        pieces += self._hole(before, hole)
        return 0

    def _change_clock(self, chunk: Chunk) -> list[Piece]:
        """Go on in the chunk's format, from the same instant of the timeline."""
        rate, same_rate = chunk.format.rate, chunk.format.rate == self._format.rate
        clock = Clock(rate, 0, 0, 0)
        # Rounding one instant to two frame grids can leave a hole of under a frame in which nothing was lost: the old
        # run's end is padded up to it.
        if chunk.offset is not None and 0 < clock.position(chunk.offset) - self.head <= 1 + SAMPLE_RATE // rate:
            self._given += clock.position(chunk.offset) - self.head
            self.head = clock.position(chunk.offset)
        pieces = self._digest()
        pieces += self.flush()
        self._format, self._intake = chunk.format, Intake(chunk.format, self._counts)
        if chunk.offset is not None:
            clock.next_frame = clock.first_frame_at(self.head)
            self._clock = clock
        elif not same_rate:
            self._clock = Clock(rate, self.head, 0, 0)
        self._plan()
        return pieces

    def _hole(self, start: int, reason: GapReason) -> list[Piece]:
        """[start, head) will never be heard; call with everything before it flushed."""
        self._given = 0
        if self.head == start:
            return []
        self._segmenter.jump(self.head)
        return [
            Gap(origin=self.origin, start=start, end=self.head, reason=reason, cursor=self._cursor_after(self.head))
        ]

    def _wrap(self, spans: list[Span]) -> Iterator[Piece]:
        for span in spans:
            if span.samples is None:
                yield Silence(self.origin, span.start, span.end, self._cursor_after(span.end))
            else:
                window = self._known.window(span, span.samples, self.head)
                yield replace(window, cursor=self._cursor_after(span.end))
                self._known.sequence += 1
        self._known.forget(self._segmenter.settled)
