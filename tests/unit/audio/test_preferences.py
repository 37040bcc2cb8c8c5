"""Preferences hold for their session: the pause, the timeout, partials, and what the engine is told (P-34)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import Speech, s16
from turns import chunk, make

from transcriber.audio.segmenter import END_OF_SPEECH, Segmentation, Segmenter
from transcriber.audio.sessions import SessionOutput, Sessions
from transcriber.audio.vad import FRAME
from transcriber.domain.chunks import Chunk, Preferences
from transcriber.domain.events import Ended
from transcriber.domain.timeline import SAMPLE_RATE, Guidance, Window

QUIET = bytes(2 * SAMPLE_RATE)


@pytest.fixture
def spoken(heldout: Speech) -> bytes:
    return s16(heldout.cut(4, 5).samples)


def preferring(session: str, pcm: bytes, **preferences: object) -> Chunk:
    return replace(chunk(session, pcm=pcm), preferences=Preferences(**preferences))  # type: ignore[arg-type]


def windows(outputs: list[SessionOutput]) -> list[Window]:
    return [output for output in outputs if isinstance(output, Window)]


class Hearing:
    """A stand-in detector: what is not zero is speech."""

    def detect(self, frames: np.ndarray) -> list[bool]:
        return [bool(frame.any()) for frame in frames]


@pytest.mark.parametrize(
    ("asked", "frames"), [(0.0, END_OF_SPEECH), (0.3, END_OF_SPEECH), (0.6, 20), (1.5, 50), (60.0, 167)]
)
@pytest.mark.parametrize("spoken", [4, 300])
def test_pause_that_closes_a_window_is_as_asked(asked: float, frames: int, spoken: int) -> None:
    """Within 0.48 and 5 s, and for short windows as for long ones."""
    segmenter = Segmenter(Segmentation.UTTERANCE, 30 * SAMPLE_RATE, Hearing(), 0, 30)
    segmenter.prefer(eager=False, pause_secs=asked)
    speech = np.full(spoken * FRAME, 0.5, np.float32)
    assert all(span.samples is None for span in segmenter.push(speech))
    assert all(span.samples is None for span in segmenter.push(np.zeros((frames - 1) * FRAME, np.float32)))
    (window,) = [span for span in segmenter.push(np.zeros(FRAME, np.float32)) if span.samples is not None]
    assert window.samples is not None


def test_pause_is_noticed_without_delay(spoken: bytes) -> None:
    """A longer pause than the default's, in small chunks: the window closes then, not before and not much later."""
    sessions = make()
    sessions.receive(preferring("a", spoken, pause=1.5), 0)
    closed = next(n for n in range(1, 200) if windows(sessions.receive(chunk("a", pcm=bytes(640)), 0)))
    assert 1.0 <= closed * 0.02 <= 1.6  # the recording ends with up to half a second of silence


def test_session_ends_after_its_own_timeout(spoken: bytes) -> None:
    """The setting is the longest. Another session of the same stream has the setting again."""
    for preferred, last, ended in ((5.0, 4.9, 5.0), (10_000.0, 299.9, 300.0), (None, 299.9, 300.0)):
        sessions = make()
        sessions.receive(preferring("a", spoken, timeout=preferred), 0)
        assert not [o for o in sessions.tick(last) if isinstance(o, Ended)]
        for window in windows(outputs := sessions.tick(ended)):
            outputs += sessions.transcribed(window)
        assert sessions.active == 0
    sessions.receive(preferring("a", spoken, timeout=5.0), 0)
    sessions.receive(chunk("b", pcm=spoken), 0)
    sessions.tick(299.0)
    assert sessions.active == 1


def test_partials_can_be_switched_off_and_on(spoken: bytes) -> None:
    """The window is open in any case."""
    sessions: Sessions = make()
    sessions.receive(preferring("a", spoken, partials=False), 0)
    assert sessions.open_window("s") is None
    assert sessions.peek("s") is not None
    sessions.receive(preferring("a", b"\0\0", partials=True), 0)
    assert sessions.open_window("s") is not None


def test_windows_carry_prompt_and_task_of_their_session(spoken: bytes) -> None:
    """From the chunk on that names them, until another one does, and not into the next session."""
    sessions = make()
    heard: list[Guidance] = []
    for sent in (
        chunk("a", pcm=spoken + QUIET),
        preferring("a", spoken + QUIET, prompt="Kiel"),
        chunk("a", pcm=spoken + QUIET),
        preferring("a", spoken + QUIET, translate=True),
        preferring("a", spoken + QUIET, prompt="", translate=False),
        chunk("b", pcm=spoken + QUIET),
    ):
        heard += [window.guidance for window in windows(sessions.receive(sent, 0))]
    assert heard == [
        Guidance(),
        Guidance("Kiel"),
        Guidance("Kiel"),
        Guidance("Kiel", translate=True),
        Guidance(""),
        Guidance(),
    ]
