"""Cuts audio into spans of speech and silence with exact bounds, by the detector's decisions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from transcriber.audio.vad import FRAME, WebRtcDetector
from transcriber.domain.timeline import SAMPLE_RATE, Closed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transcriber.audio.vad import SpeechDetector

# All in frames of 30 ms.
PRE_ROLL = 10  # 300 ms before the first voiced frame: unvoiced onsets (s, f, th) last up to 200 ms; Whisper allows 1 s
POST_ROLL = 8  # 240 ms after the last voiced frame: final unvoiced consonants and their release
END_OF_SPEECH = 16  # 480 ms without a voiced frame close a window: just under the shortest pause that must close one
_LONGEST_PAUSE = 167  # 5 s: a longer pause is silence
# From 8 s on a window needs no more words. Shorter windows may wait longer for more (`longest_pause`).
_LONG_ENOUGH = 267
ONSET, ONSET_OF = 3, 4  # a window opens when 3 of the last 4 frames are voiced: a click is shorter, a word longer
_RETAINED = PRE_ROLL + ONSET_OF  # frames kept while nobody speaks
_NOTICED = 8  # 240 ms, within which an opening is noticed: the first partial comes 300 ms and the pre-roll later
_NOTICED_EAGERLY = 1

_HOP = SAMPLE_RATE // 100  # 10 ms: the grid on which a cut is placed
_SMOOTH = 6  # hops, 60 ms: the closure inside a stop consonant is shorter, the space between two words often longer


class Segmentation(StrEnum):
    """How windows are cut."""

    UTTERANCE = "utterance"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How audio becomes windows.

    `window_secs`: the longest window. `pause_secs`: the pause that closes a window of a word or two. Longer windows
    close after shorter pauses, down to 0.48 s. Both in seconds.
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


class Span(NamedTuple):
    """[start, end) of the timeline. `samples`: float32 of shape (end - start,) for speech, None for silence."""

    start: int
    end: int
    samples: NDArray[np.float32] | None
    voiced: float
    closed: Closed | None = None  # of speech: why it ends here; None while it is open


@dataclass(slots=True)
class _Buffer:
    """Unsettled audio from `origin` on: whole frames with their decisions, and a `tail` of less than a frame."""

    origin: int
    pieces: list[NDArray[np.float32]]
    voiced: list[bool]
    tail: NDArray[np.float32]

    @property
    def framed_end(self) -> int:
        return self.origin + len(self.voiced) * FRAME

    def samples(self) -> NDArray[np.float32]:
        if len(self.pieces) != 1:
            self.pieces = [np.concatenate(self.pieces)] if self.pieces else [np.zeros(0, np.float32)]
        return self.pieces[0]

    def drop_before(self, position: int) -> None:
        frames = min((position - self.origin) // FRAME, len(self.voiced))
        if frames > 0:
            self.pieces = [self.samples()[frames * FRAME :].copy()]  # a copy, so that the dropped part is freed
            del self.voiced[:frames]
            self.origin += frames * FRAME


class Segmenter:
    """Cuts one contiguous run of 16 kHz float32 mono into consecutive spans without gaps.

    `utterance`: a window opens at speech, with pre-roll, and closes after a pause. A window that would exceed
    `max_samples` is cut at the quietest spot of its last third. `fixed`: the audio is cut every `max_samples`, and a
    span counts as speech where the detector found some. The spans do not depend on how the samples are split.
    """

    def __init__(
        self,
        mode: Segmentation,
        max_samples: int,
        detector: SpeechDetector,
        position: int = 0,
        longest_pause: int = END_OF_SPEECH,
    ) -> None:
        """`longest_pause`: frames without speech that close a very short window. Longer windows need fewer."""
        self._mode = mode
        self._longest_pause, self._shortest_pause = longest_pause, END_OF_SPEECH
        self._max = max_samples
        self._detector = detector
        self._open = False
        self._eager = False
        self._reset(position)

    def _reset(self, position: int) -> None:
        self._buffer = _Buffer(position, [], [], np.zeros(0, np.float32))
        self._start = position  # of the unsettled audio; lies inside the buffer's first frame
        self._last_voiced = position  # end of the last voiced frame
        self._open = False

    def prefer(self, *, eager: bool, pause_secs: float | None) -> None:
        """Notice an opening at once if `eager`. Close windows after this pause, whatever their length."""
        self._eager = eager
        if pause_secs is not None:
            frames = round(pause_secs * SAMPLE_RATE / FRAME)
            self._longest_pause = self._shortest_pause = min(max(frames, END_OF_SPEECH), _LONGEST_PAUSE)

    @property
    def settled(self) -> int:
        """Position before which every sample is in a span."""
        return self._start

    @property
    def open_samples(self) -> int:
        """Samples in the open window, 0 if none is open."""
        return self._buffer.framed_end - self._start if self._open else 0

    @property
    def speech_start(self) -> int | None:
        """Where the open window begins; None if none is open, or it holds no speech since it was cut."""
        return self._start if self._open and self._last_voiced > self._start else None

    @property
    def patience(self) -> int:
        """How many samples the caller may gather before a push without delaying the close of a window."""
        buffer = self._buffer
        end = buffer.framed_end
        if self._mode is Segmentation.FIXED:
            left = self._start + self._max - end
        elif self._open:
            left = min(self._last_voiced + self._pause * FRAME, self._start + self._max - FRAME) - end
        else:
            left = (_NOTICED_EAGERLY if self._eager else _NOTICED) * FRAME
        return max(1, left - len(buffer.tail))

    @property
    def _pause(self) -> int:
        """Frames without speech that close the open window: the longer it is, the fewer, down to the shortest pause."""
        held = (self._last_voiced - self._start) // FRAME
        longer = (self._longest_pause - self._shortest_pause) * max(0, _LONG_ENOUGH - held) // _LONG_ENOUGH
        return self._shortest_pause + max(0, longer)

    @property
    def speaking(self) -> bool:
        """Whether the unsettled audio contains speech."""
        return self._open or sum(self._buffer.voiced) >= ONSET

    def peek(self) -> Span | None:
        """Return the open window so far, without settling anything; None if none is open."""
        if not self._open:
            return None
        buffer, start, end = self._buffer, self._start, self._buffer.framed_end
        voiced = buffer.voiced[(start - buffer.origin) // FRAME :]
        return Span(start, end, buffer.samples()[start - buffer.origin :].copy(), sum(voiced) / len(voiced))

    def push(self, samples: NDArray[np.float32]) -> list[Span]:
        """Take the next samples (n,). Returns the spans that are decided now."""
        buffer = self._buffer
        data = np.concatenate([buffer.tail, samples])
        count = len(data) // FRAME
        buffer.tail = data[count * FRAME :].copy()
        spans: list[Span] = []
        if not count:
            return spans
        buffer.pieces.append(data[: count * FRAME])
        decisions = self._detector.detect(data[: count * FRAME].reshape(count, FRAME))
        if self._mode is Segmentation.UTTERANCE and not self._open and True not in decisions:
            buffer.voiced += decisions  # the usual case on most streams: nobody speaks, so there is nothing to follow
        else:
            for voiced in decisions:
                buffer.voiced.append(voiced)
                self._advance(voiced, spans)
        if self._mode is Segmentation.UTTERANCE and not self._open:
            self._quiet_until(buffer.framed_end - _RETAINED * FRAME, spans)
        buffer.drop_before(self._start)
        return spans

    def flush(self, closed: Closed = Closed.END) -> list[Span]:
        """Decide all that is left, as if the audio ended here. The next push continues from there.

        `closed`: why the open window is closed.
        """
        buffer = self._buffer
        end = buffer.framed_end + len(buffer.tail)
        if len(buffer.tail):
            buffer.pieces.append(np.concatenate([buffer.tail, np.zeros(FRAME - len(buffer.tail), np.float32)]))
            buffer.voiced.append(self._open and self._last_voiced == buffer.framed_end)
            if buffer.voiced[-1]:
                self._last_voiced = end
        spans: list[Span] = []
        if self._mode is Segmentation.FIXED:
            while end > self._start:
                full = end - self._start > self._max
                self._emit(min(end, self._start + self._max), spans, Closed.LENGTH if full else closed)
        else:
            if self._open:
                self._close(end, spans, closed)
            self._quiet_until(end, spans)
        self._reset(end)
        return spans

    def jump(self, position: int) -> None:
        """Continue at `position`, after a hole. Call `flush` first."""
        self._reset(position)

    def _advance(self, voiced: bool, spans: list[Span]) -> None:
        """Take the decision of one more frame."""
        end = self._buffer.framed_end
        if self._mode is Segmentation.FIXED:
            while end - self._start >= self._max:
                self._emit(self._start + self._max, spans, Closed.LENGTH)
            return
        if voiced:
            self._last_voiced = end
        if not self._open:
            recent = self._buffer.voiced[-ONSET_OF:]
            if voiced and sum(recent) >= ONSET:
                first = end - (len(recent) - recent.index(True)) * FRAME
                self._quiet_until(first - PRE_ROLL * FRAME, spans)
                self._open = True
        elif end - self._last_voiced >= self._pause * FRAME:
            self._close(end, spans, Closed.PAUSE)
        if self._open and end + FRAME - self._start > self._max:
            self._emit(self._quietest(), spans, Closed.LENGTH)

    def _close(self, end: int, spans: list[Span], closed: Closed) -> None:
        """Close the open window after its last voiced frame and post-roll. The rest waits for the next decision."""
        if self._last_voiced > self._start:
            self._emit(min(end, self._last_voiced + POST_ROLL * FRAME), spans, closed)
        self._open = False

    def _quiet_until(self, end: int, spans: list[Span]) -> None:
        if end > self._start:
            spans.append(Span(self._start, end, None, 0.0))
            self._start = end

    def _emit(self, end: int, spans: list[Span], closed: Closed) -> None:
        """Append the span [start, end) as speech, or in fixed mode as silence if too little of it was voiced."""
        buffer, start = self._buffer, self._start
        first, last = (start - buffer.origin) // FRAME, -(-(end - buffer.origin) // FRAME)
        voiced = buffer.voiced[first:last]
        if self._mode is Segmentation.FIXED and sum(voiced) < ONSET:
            return self._quiet_until(end, spans)
        samples = buffer.samples()[start - buffer.origin : end - buffer.origin].copy()
        spans.append(Span(start, end, samples, sum(voiced) / len(voiced), closed))
        self._start = end
        return None

    def _quietest(self) -> int:
        """Where to cut a full window: the middle of the quietest 60 ms of its last third."""
        buffer = self._buffer
        begin = self._start + self._max * 2 // 3
        tail = buffer.samples()[begin - buffer.origin : buffer.framed_end - buffer.origin]
        hops = len(tail) // _HOP
        if hops < _SMOOTH:  # windows under a fifth of a second: nothing to choose from
            return buffer.framed_end
        energy = np.square(tail[: hops * _HOP]).reshape(hops, _HOP).sum(axis=1)
        smooth = np.convolve(energy, np.ones(_SMOOTH), "valid")
        return begin + (int(np.argmin(smooth)) + _SMOOTH // 2) * _HOP
