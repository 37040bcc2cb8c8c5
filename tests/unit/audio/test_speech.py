"""Events for a producer that wants to know when somebody speaks (P-33), and why each window is closed (P-31)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import Speech, s16
from hypothesis import given, settings
from hypothesis import strategies as st
from turns import chunk, make

from transcriber.audio.segmenter import Segmentation, StreamOptions
from transcriber.audio.sessions import SessionOutput
from transcriber.domain.chunks import AudioFormat, Chunk, ChunkEvent, Encoding, Preferences
from transcriber.domain.events import Speech as Event
from transcriber.domain.timeline import SAMPLE_RATE, Closed, Origin, Window

ASKING = Preferences(speech=True)
QUIET = bytes(2 * SAMPLE_RATE)


def asking(pcm: bytes, session: str = "a", event: ChunkEvent | None = None) -> Chunk:
    return replace(chunk(session, pcm=pcm, event=event), preferences=ASKING)


def events(outputs: list[SessionOutput]) -> list[Event]:
    return [output for output in outputs if isinstance(output, Event)]


def windows(outputs: list[SessionOutput]) -> list[Window]:
    return [output for output in outputs if isinstance(output, Window)]


@given(
    st.lists(st.integers(1, 30_000), min_size=1, max_size=6),
    st.sampled_from(Segmentation),
    st.lists(st.integers(0, 40), max_size=3),
)
@settings(max_examples=40)
def test_each_window_opens_and_closes_once(
    heldout: Speech, sizes: list[int], mode: Segmentation, flushes: list[int]
) -> None:
    """However the audio is split, cut and flushed: with the window's own bounds and reason, and before the window."""
    pcm = s16(heldout.samples[: 12 * SAMPLE_RATE])
    sessions = make(stream=StreamOptions(mode, window_secs=2.0))
    outputs: list[SessionOutput] = []
    at = count = 0
    while at < len(pcm):
        size = 2 * sizes[count % len(sizes)]
        flush = ChunkEvent.FLUSH if count in flushes else None
        outputs += sessions.receive(asking(pcm[at : at + size], event=flush), 0)
        at, count = at + size, count + 1
    outputs += sessions.end_all()
    found = windows(outputs)
    assert found
    wanted = [e for w in found for e in (Event(w.origin, w.start), Event(w.origin, w.start, w.end, w.closed))]
    assert events(outputs) == wanted
    assert all(isinstance(outputs[outputs.index(w) - 1], Event) for w in found)


def test_speech_is_noticed_within_a_fifth_of_a_second(heldout: Speech) -> None:
    """At 16 kHz and in chunks of 20 ms: three voiced frames of four, counted from the window's pre-roll on."""
    speech = heldout.cut(4, 5)
    pcm = QUIET + s16(speech.samples)
    sessions = make()
    for at in range(0, len(pcm), 640):
        if found := events(sessions.receive(asking(pcm[at : at + 640]), 0)):
            break
    (opened,) = found
    heard = (at + 640) // 2
    assert opened.end is None
    assert opened.start < heard
    assert heard - opened.start <= 0.3 * SAMPLE_RATE + 0.2 * SAMPLE_RATE  # the pre-roll, and the time to notice


def test_speech_events_begin_with_the_header(heldout: Speech) -> None:
    """Also for a window that is open then. Later chunks of the session do not need it, and the next session does."""
    pcm = s16(heldout.cut(4, 5).samples)
    sessions = make()
    assert events(sessions.receive(chunk("a", pcm=pcm), 0)) == []
    (opened,) = events(sessions.receive(asking(b"\0\0"), 0))
    assert opened.end is None
    outputs = sessions.receive(chunk("a", pcm=QUIET), 0)
    assert [e.start for e in events(outputs)] == [opened.start]
    assert events(outputs)[0].closed is Closed.PAUSE
    outputs = sessions.receive(chunk("b", pcm=pcm), 0)
    assert events(outputs) == []


@pytest.fixture
def spoken(heldout: Speech) -> bytes:
    """Three seconds in which somebody speaks from near the beginning to the end."""
    row = max(heldout.rows, key=lambda row: row["end"] - row["start"])
    begin = round(row["start"] * SAMPLE_RATE)
    return s16(heldout.samples[begin : begin + 3 * SAMPLE_RATE])


def reasons(outputs: list[SessionOutput]) -> list[Closed | None]:
    return [window.closed for window in windows(outputs)]


def test_windows_say_why_they_are_closed(spoken: bytes) -> None:
    """By a pause, a flush, the end, or a session that follows."""
    sessions = make()
    assert reasons(sessions.receive(chunk("a", pcm=spoken + QUIET), 0)) == [Closed.PAUSE]
    assert reasons(sessions.receive(chunk("a", pcm=spoken, event=ChunkEvent.FLUSH), 0)) == [Closed.FLUSH]
    assert reasons(sessions.receive(chunk("a", pcm=spoken, event=ChunkEvent.END), 0)) == [Closed.END]
    assert reasons(sessions.receive(chunk("b", pcm=spoken), 0)) == []
    assert reasons(sessions.receive(chunk("c", pcm=spoken), 0)) == [Closed.END]
    assert reasons(sessions.end_all()) == [Closed.END]


def test_windows_that_are_cut_say_length(spoken: bytes) -> None:
    """Full ones, and ones before a hole or another format: the speech may go on in the next window."""
    sessions = make(stream=StreamOptions(window_secs=1.0))
    outputs = sessions.receive(chunk("a", pcm=spoken, event=ChunkEvent.FLUSH), 0)
    assert reasons(outputs) == [*[Closed.LENGTH] * (len(windows(outputs)) - 1), Closed.FLUSH]
    assert len(windows(outputs)) > 2
    sessions = make()
    sessions.receive(chunk("a", 0, spoken), 0)
    assert reasons(sessions.receive(chunk("a", 4 * SAMPLE_RATE, spoken), 0)) == [Closed.LENGTH]
    other = AudioFormat(Encoding.F32LE, SAMPLE_RATE, 1)
    wide = (np.frombuffer(spoken, "<i2") / np.float32(32768)).astype("<f4").tobytes()
    assert reasons(sessions.receive(chunk("a", pcm=wide, audio_format=other), 0)) == [Closed.LENGTH]


def test_timeouts_close_as_pause_and_end(spoken: bytes) -> None:
    """No audio for a while is a pause. The end of the session is its end."""
    sessions = make(stream_timeout=5.0, session_timeout=60.0)
    sessions.receive(chunk("a", pcm=spoken), 0)
    assert reasons(sessions.tick(5.0)) == [Closed.PAUSE]
    sessions.receive(chunk("a", pcm=spoken), 6.0)
    assert reasons(sessions.tick(67.0)) == [Closed.END]


def test_open_window_has_no_reason(spoken: bytes) -> None:
    """So a partial has none either."""
    sessions = make()
    sessions.receive(chunk("a", pcm=spoken), 0)
    opened = sessions.peek("s")
    assert opened is not None
    assert (opened.origin, opened.closed) == (Origin("s", "a"), None)
