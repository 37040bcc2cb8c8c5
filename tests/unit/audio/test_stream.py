"""One session's timeline: which chunks a window came from, and where rates and holes put it."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from harness import Speech, s16

from transcriber.audio.segmenter import StreamOptions
from transcriber.audio.stream import AudioStream, TimelineItem
from transcriber.domain.chunks import AudioFormat, Chunk, Encoding
from transcriber.domain.timeline import Gap, GapReason, Origin, Silence, Window

FORMAT = AudioFormat(Encoding.S16LE, 16_000, 1)


def trace(n: int) -> str:
    return f"00-{n:032x}-{n:016x}-01"


def stream_of(speech: Speech, *, chunk_secs: float = 0.1, **fields: str) -> list[TimelineItem]:
    """Push the recording at a frame a second; chunk n carries trace n + 1."""
    size = int(chunk_secs * 16_000) * 2
    pcm = s16(speech.samples)
    chunks = [
        Chunk("s", FORMAT, pcm[i : i + size], "x", i // 2, arrived=i / 2, traceparent=trace(i // size + 1), **fields)  # type: ignore[arg-type]
        for i in range(0, len(pcm), size)
    ]
    audio = AudioStream(Origin("s", "x"), StreamOptions(), chunks[0])
    return [piece for chunk in chunks for piece in audio.push(chunk)] + audio.flush()


def test_window_is_linked_to_exactly_the_chunks_it_overlaps(heldout: Speech) -> None:
    """Each window carries the trace of every chunk in it, in order, and of no other."""
    windows = [p for p in stream_of(heldout.cut(0, 6)) if isinstance(p, Window)]
    assert len(windows) >= 5
    for window in windows:
        first, last = window.start // 1600, (window.end - 1) // 1600
        assert window.traceparents == tuple(trace(n + 1) for n in range(first, last + 1))


@pytest.mark.parametrize("chunk_secs", [0.02, 0.1, 0.5])
def test_a_window_knows_when_its_first_audio_came(heldout: Speech, chunk_secs: float) -> None:
    """That is when the chunk with its first sample came. Of smaller chunks, one up to 0.1 s earlier counts."""
    windows = [p for p in stream_of(heldout.cut(0, 6), chunk_secs=chunk_secs) if isinstance(p, Window)]
    assert len(windows) >= 5
    for window in windows:
        assert 0 <= window.start - window.arrived < max(chunk_secs, 0.1) * 16_000


def test_pieces_tile_the_timeline_in_order(heldout: Speech) -> None:
    """Windows and silences follow each other without holes or overlaps."""
    position = 0
    for piece in stream_of(heldout.cut(0, 10)):
        assert isinstance(piece, Window | Silence)
        assert piece.start == position
        position = piece.end
    assert position == len(heldout.cut(0, 10).samples)


def test_language_and_tenant_stick_to_what_follows(heldout: Speech) -> None:
    """A hint on one chunk holds for the session until another hint comes."""
    windows = [p for p in stream_of(heldout.cut(0, 2), language="de", tenant="t-1") if isinstance(p, Window)]
    assert {(w.language, w.origin.tenant) for w in windows} == {("de", "t-1")}


@pytest.mark.parametrize("rate", [8000, 11_025, 44_100, 48_000, 192_000])
def test_speech_lies_at_the_same_time_whatever_the_rate(heldout: Speech, rate: int) -> None:
    """At another rate the same audio has the same window bounds, to within two frames of the detector."""
    part = heldout.cut(0, 4)
    pcm = s16(soxr.resample(part.samples, 16_000, rate, "HQ"))
    chunk = Chunk("s", AudioFormat(Encoding.S16LE, rate, 1), pcm, "x", 0)
    audio = AudioStream(Origin("s", "x"), StreamOptions(), chunk)
    there = [p for p in audio.push(chunk) + audio.flush() if isinstance(p, Window)]
    here = [p for p in stream_of(part) if isinstance(p, Window)]
    assert len(there) == len(here)
    for a, b in zip(there, here, strict=True):
        assert abs(a.start - b.start) <= 960
        assert abs(a.end - b.end) <= 960


def test_hole_closes_the_window_and_no_window_reaches_into_it(heldout: Speech) -> None:
    """Speech before the hole is one window, and speech after it another. Between them lies the gap, to the sample."""
    pcm = s16(heldout.cut(0, 1).samples)
    first = Chunk("s", FORMAT, pcm[:32_000], "x", 100)
    audio = AudioStream(Origin("s", "x"), StreamOptions(), first)
    pieces = audio.push(first)
    pieces += audio.push(Chunk("s", FORMAT, pcm[40_000:60_000], "x", 20_100), GapReason.UNDECODABLE)
    pieces += audio.flush()
    (gap,) = [p for p in pieces if isinstance(p, Gap)]
    assert (gap.start, gap.end, gap.reason) == (16_100, 20_100, GapReason.UNDECODABLE)
    windows = [p for p in pieces if isinstance(p, Window)]
    assert any(w.end == 16_100 for w in windows)
    assert all(w.end <= 16_100 or w.start >= 20_100 for w in windows)


def test_repeated_audio_is_heard_once(heldout: Speech) -> None:
    """Duplicates and overlaps are trimmed. The windows are those of the undisturbed stream."""
    pcm = s16(heldout.cut(0, 2).samples)
    plain = Chunk("s", FORMAT, pcm, "x", 0)
    audio = AudioStream(Origin("s", "x"), StreamOptions(), plain)
    wanted = [p for p in audio.push(plain) + audio.flush() if isinstance(p, Window)]
    twice = AudioStream(Origin("s", "x"), StreamOptions(), plain)
    pieces: list[TimelineItem] = []
    for i in range(0, len(pcm), 6400):
        begin = max(0, i - 9600)
        pieces += twice.push(Chunk("s", FORMAT, pcm[begin : i + 6400], "x", begin // 2))
        pieces += twice.push(Chunk("s", FORMAT, pcm[i : i + 6400], "x", i // 2))
    heard = [p for p in pieces + twice.flush() if isinstance(p, Window)]
    assert [(w.start, w.end) for w in heard] == [(w.start, w.end) for w in wanted]
    for a, b in zip(heard, wanted, strict=True):
        np.testing.assert_array_equal(a.samples, b.samples)


def test_resampler_remainder_is_pending_until_the_flush() -> None:
    """At every moment head - settled is what is buffered. A flush brings it to zero."""
    chunk = Chunk("s", AudioFormat(Encoding.S16LE, 48_000, 1), bytes(2 * 4801), "x", 0)
    audio = AudioStream(Origin("s", "x"), StreamOptions(), chunk)
    settled = sum(p.end - p.start for p in audio.push(chunk) if isinstance(p, Silence))
    assert audio.head == 1600
    assert audio.buffered == 1600 - settled
    audio.flush()
    assert audio.buffered == 0
