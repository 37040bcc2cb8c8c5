"""Windows of speech: where they open, close and are cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from harness import Speech
from hypothesis import given, settings
from hypothesis import strategies as st

from transcriber.audio.segmenter import END_OF_SPEECH, POST_ROLL, PRE_ROLL, Segmentation, Segmenter, Span
from transcriber.audio.vad import FRAME, WebRtcDetector


class ScriptedDetector:
    """A stand-in that hears speech where the samples are not zero, so that a test can draw its own speech."""

    def detect(self, frames: np.ndarray) -> list[bool]:
        return [bool(frame.any()) for frame in frames]


def drawn(pattern: str, unit: int = FRAME) -> np.ndarray:
    """One character a frame: '#' is speech, anything else silence."""
    return np.repeat([0.5 if c == "#" else 0.0 for c in pattern], unit).astype(np.float32)


def segment(
    samples: np.ndarray,
    cuts: list[int],
    *,
    mode: Segmentation = Segmentation.UTTERANCE,
    longest: int = 80_000,
    pause: int = END_OF_SPEECH,
) -> list[Span]:
    segmenter = Segmenter(mode, longest, ScriptedDetector(), 1000, pause)
    spans: list[Span] = []
    for piece in np.split(samples, sorted(min(c, len(samples)) for c in cuts)):
        spans += segmenter.push(piece)
    return spans + segmenter.flush()


def speech(spans: list[Span]) -> list[tuple[int, int]]:
    return [(s.start, s.end) for s in spans if s.samples is not None]


def check_tiling(spans: list[Span], samples: np.ndarray) -> None:
    position = 1000
    for span in spans:
        assert span.start == position
        assert span.end > span.start
        if span.samples is not None:
            np.testing.assert_array_equal(span.samples, samples[span.start - 1000 : span.end - 1000])
        position = span.end
    assert position == 1000 + len(samples)


@settings(max_examples=150, deadline=None)
@given(
    st.text("#.", min_size=0, max_size=400),
    st.integers(0, FRAME - 1),
    st.lists(st.integers(0, 200_000), max_size=10),
    st.sampled_from(Segmentation),
    st.integers(16_000, 90_000),
    st.integers(END_OF_SPEECH, 60),
)
def test_spans_tile_the_audio_however_it_is_split(  # noqa: PLR0913, PLR0917 - one for each thing that is drawn
    pattern: str, extra: int, cuts: list[int], mode: Segmentation, longest: int, pause: int
) -> None:
    """Every sample is in exactly one span, with its own value.

    No window is too long, and any split gives the same ones.
    """
    samples = np.concatenate([drawn(pattern), np.full(extra, 0.5, np.float32)])
    whole = segment(samples, [], mode=mode, longest=longest, pause=pause)
    check_tiling(whole, samples)
    assert all(end - start <= longest for start, end in speech(whole))
    split = segment(samples, cuts, mode=mode, longest=longest, pause=pause)
    check_tiling(split, samples)
    assert speech(split) == speech(whole)


def test_window_surrounds_its_speech_with_pre_and_post_roll() -> None:
    """Pre-roll and post-roll surround the speech, and silence tiles the rest."""
    spans = segment(drawn("." * 40 + "#" * 20 + "." * 40), [])
    first, last = 1000 + 40 * FRAME, 1000 + 60 * FRAME
    assert speech(spans) == [(first - PRE_ROLL * FRAME, last + POST_ROLL * FRAME)]


@pytest.mark.parametrize(("words", "pause", "windows"), [(20, 30, 1), (20, 33, 2), (260, 18, 2), (260, 15, 1)])
def test_short_window_waits_longer_for_more_speech(words: int, pause: int, windows: int) -> None:
    """The pause that closes it falls from the longest one, here a second, to the usual one at 8 s."""
    pattern = "." * 40 + "#" * words + "." * pause + "#" * 20 + "." * 60
    assert len(speech(segment(drawn(pattern), [], longest=16 * 30 * FRAME, pause=33))) == windows


def test_a_click_opens_no_window() -> None:
    """Two voiced frames in a row are a click, not a word."""
    assert speech(segment(drawn("." * 40 + "##" + "." * 40 + "##" + "." * 40), [])) == []


def test_short_pause_does_not_end_the_window() -> None:
    """Speakers breathe: only END_OF_SPEECH frames of silence close a window."""
    short, long = "." * (END_OF_SPEECH - 1), "." * END_OF_SPEECH
    assert len(speech(segment(drawn("#" * 20 + short + "#" * 20), []))) == 1
    assert len(speech(segment(drawn("#" * 20 + long + "#" * 20), []))) == 2


def test_pre_roll_stops_at_the_previous_window() -> None:
    """Two windows a short pause apart touch and never overlap."""
    pause = "." * END_OF_SPEECH
    (_, end), (start, _) = speech(segment(drawn("#" * 20 + pause + "#" * 20), []))
    assert start == end


def test_full_window_is_cut_at_the_quietest_spot_near_its_end() -> None:
    """Twelve seconds without a pause are cut where the signal dips, in the window's last third."""
    samples = np.full(12 * 16_000, 0.5, np.float32)
    dips = [int(4.2 * 16_000), int(8.3 * 16_000)]
    for dip in dips:
        samples[dip : dip + 1280] = 0.01  # 80 ms; not silent, only quieter
    windows = speech(segment(samples, []))
    borders = [a[1] - 1000 for a, _ in pairwise(windows)]
    assert len(borders) == 2
    assert all(dip < border < dip + 1280 for dip, border in zip(dips, borders, strict=True))


def test_fixed_windows_are_cut_to_the_sample_and_skip_silence() -> None:
    """`fixed` cuts every max_samples whatever is said, and asks the detector afterwards."""
    samples = drawn("#" * 100 + "." * 150 + "#" * 100)
    spans = segment(samples, [], mode=Segmentation.FIXED, longest=32_000)
    check_tiling(spans, samples)
    assert [s.end - s.start for s in spans[:-1]] == [32_000] * (len(spans) - 1)
    assert [s.samples is not None for s in spans] == [True, True, False, True, True, True]


def test_a_jump_leaves_a_hole_that_no_window_reaches_into() -> None:
    """After a flush and a jump the next window's pre-roll stops at the jump."""
    segmenter = Segmenter(Segmentation.UTTERANCE, 80_000, ScriptedDetector(), 0)
    segmenter.push(drawn("#" * 20))
    assert speech(segmenter.flush()) == [(0, 20 * FRAME)]
    segmenter.jump(50_000)
    spans = segmenter.push(drawn("#" * 20)) + segmenter.flush()
    assert speech(spans) == [(50_000, 50_000 + 20 * FRAME)]


@pytest.mark.parametrize("level", [1.0, 0.1])
def test_real_speech_lies_inside_windows_and_the_pauses_outside(heldout: Speech, level: float) -> None:
    """Windows hold at least 99 % of recorded speech, and leave long pauses mostly out."""
    part = heldout.cut(0, 30)
    spans = Segmenter(Segmentation.UTTERANCE, 80_000, WebRtcDetector(), 0).push(part.samples * np.float32(level))
    windows = speech(spans)
    inside = total = 0.0
    for row in part.rows[:-1]:  # the last one's window may still be open
        start, end = row["start"] * 16_000, row["end"] * 16_000
        total += end - start
        inside += sum(max(0.0, min(end, e) - max(start, s)) for s, e in windows)
    assert inside / total >= 0.99


@given(st.text("#.", max_size=200), st.integers(1, 40))
@settings(deadline=None)
def test_look_at_an_open_window_decides_nothing(pattern: str, step: int) -> None:
    """A look shows the beginning of the later window. The window is the same without any look."""
    samples = drawn(pattern)
    looked_at = Segmenter(Segmentation.UTTERANCE, 80_000, ScriptedDetector(), 1000)
    spans: list[Span] = []
    looks: list[Span] = []
    for first in range(0, len(samples), step * FRAME):
        spans += looked_at.push(samples[first : first + step * FRAME])
        look = looked_at.peek()
        assert (look.end - look.start if look else 0) == looked_at.open_samples
        looks += [look] if look else []
    spans += looked_at.flush()
    assert speech(spans) == speech(segment(samples, []))
    windows = {span.start: span for span in spans if span.samples is not None}
    for look in looks:
        window = windows[look.start]
        shared = min(look.end, window.end) - look.start
        np.testing.assert_array_equal(look.samples[:shared], window.samples[:shared])
        np.testing.assert_array_equal(look.samples[shared:], samples[look.start + shared - 1000 : look.end - 1000])


@given(st.text("#.", max_size=200), st.sampled_from(Segmentation), st.integers(20_000, 80_000))
@settings(deadline=None)
def test_pushes_as_rare_as_patience_allows_delay_no_window(pattern: str, mode: Segmentation, longest: int) -> None:
    """The very push with the deciding frame gives out the window, not a later one."""
    samples = drawn(pattern)

    def closed_at(pieces: Iterable[np.ndarray]) -> list[tuple[int, int, int]]:
        segmenter = Segmenter(mode, longest, ScriptedDetector())
        pushed, found = 0, []
        for piece in pieces:
            pushed += len(piece)
            found += [(s.start, s.end, pushed) for s in segmenter.push(piece) if s.samples is not None]
        return found

    def patiently() -> Iterator[np.ndarray]:
        segmenter, first = Segmenter(mode, longest, ScriptedDetector()), 0
        while first < len(samples):
            piece = samples[first : first + segmenter.patience]
            segmenter.push(piece)
            first += len(piece)
            yield piece

    by_frame = closed_at(samples[k : k + FRAME] for k in range(0, len(samples), FRAME))
    seldom = closed_at(patiently())
    assert [(start, end) for start, end, _ in seldom] == [(start, end) for start, end, _ in by_frame]
    for (_, _, late), (_, _, early) in zip(seldom, by_frame, strict=True):
        assert late - early <= FRAME


def test_fixed_windows_are_not_looked_at() -> None:
    """They have no beginning of speech that a look could show."""
    segmenter = Segmenter(Segmentation.FIXED, 80_000, ScriptedDetector())
    segmenter.push(drawn("#" * 50))
    assert segmenter.peek() is None
