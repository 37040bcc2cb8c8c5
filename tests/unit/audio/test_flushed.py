"""Every flush is answered once, after all that came before it (P-32)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from harness import Speech, s16
from turns import FORMAT, chunk, make

from transcriber.audio.sessions import SessionOutput, Sessions
from transcriber.domain.chunks import AudioFormat, Chunk, ChunkEvent, Cursor, DroppedChunk, Encoding, Mark
from transcriber.domain.errors import Rejection
from transcriber.domain.events import Ended, Flushed
from transcriber.domain.timeline import Closed, Gap, GapReason, Origin, Silence, Window

FLUSH = ChunkEvent.FLUSH


def names(outputs: list[SessionOutput]) -> list[str]:
    return [type(output).__name__ for output in outputs]


def answers(outputs: list[SessionOutput]) -> list[tuple[str, int]]:
    return [(o.origin.session, o.end) for o in outputs if isinstance(o, Flushed)]


def flush(sessions: Sessions, offset: int | None = None, pcm: bytes = b"") -> list[SessionOutput]:
    return sessions.receive(chunk("a", offset, pcm, FLUSH), 0)


def test_flush_is_answered_after_the_window_that_it_closes(heldout: Speech) -> None:
    """With the last audio in the same message, or without any."""
    speech = heldout.cut(4, 5)
    for pcm, rest in ((s16(speech.samples), b""), (b"", s16(speech.samples))):
        sessions = make()
        sessions.receive(chunk("a", pcm=b"\0\0"), 0)
        outputs = (sessions.receive(chunk("a", pcm=pcm), 0) if pcm else []) + flush(sessions, pcm=rest)
        (window,) = (o for o in outputs if isinstance(o, Window))
        assert window.closed is Closed.FLUSH
        assert outputs[-1] == Flushed(Origin("s", "a"), 1 + len(speech.samples))


def test_flush_over_silence_is_answered() -> None:
    """Also a second one at the same place, where nothing is left to decide."""
    sessions = make()
    sessions.receive(chunk("a"), 0)
    assert names(flush(sessions)) == ["Silence", "Flushed"]
    assert answers(flush(sessions) + flush(sessions)) == [("a", 16_000), ("a", 16_000)]
    assert names(sessions.end_all()) == ["Ended"]


def test_flush_without_a_session_is_answered() -> None:
    """Before the first audio, and after the end. It opens no session and leaves another one alone."""
    sessions = make()
    assert flush(sessions) == [Flushed(Origin("s", "a"), 0)]
    sessions.receive(chunk("a", event=ChunkEvent.END), 0)
    assert flush(sessions, offset=32_000) == [Flushed(Origin("s", "a"), 32_000)]
    assert sessions.active == 0
    sessions.receive(chunk("b"), 0)
    assert answers(flush(sessions)) == [("a", 0)]
    assert [o.account.silent for o in sessions.end_all() if isinstance(o, Ended)] == [16_000]


def test_flush_at_another_rate_counts_in_the_session() -> None:
    """The answer is the place on the timeline."""
    sessions = make()
    narrow = AudioFormat(Encoding.MULAW, 8_000, 1)
    sessions.receive(chunk("a", 8_000, bytes([255]) * 8_000, audio_format=narrow), 0)
    assert answers(sessions.receive(chunk("a", None, b"", FLUSH, audio_format=FORMAT), 0)) == [("a", 32_000)]


def test_rejected_flush_is_not_answered_as_well() -> None:
    """`rejected` is its answer."""
    sessions = make()
    sessions.receive(chunk("a", 0), 0)
    with pytest.raises(Rejection):
        flush(sessions, offset=10**9)
    assert names(sessions.end_all()) == ["Silence", "Ended"]


def test_flush_in_dropped_audio_is_answered() -> None:
    """The audio is a gap, and the producer must not wait for ever."""
    sessions = make()
    sessions.receive(chunk("a"), 0)
    outputs = sessions.skip(DroppedChunk(chunk("a", pcm=b"", event=FLUSH), 1600), 0)
    assert [o.reason for o in outputs if isinstance(o, Gap)] == [GapReason.LAG]
    assert (names(outputs)[-1], answers(outputs)) == ("Flushed", [("a", 17_600)])


def stored(seq: int, pcm: bytes, event: ChunkEvent | None = None) -> Chunk:
    return replace(chunk("a", pcm=pcm, event=event), cursor=Cursor(seq, 0, Mark(seq, float(seq))))


def test_stored_flush_is_read_again_until_it_is_answered(heldout: Speech) -> None:
    """What comes before the answer has a cursor at the flush, not after it. What comes after it goes on after it."""
    speech = s16(heldout.cut(4, 5).samples)
    for parts in (((2, speech, None), (5, b"", FLUSH)), ((5, speech, FLUSH),)):
        sessions = make()
        outputs = sessions.receive(stored(1, b"\0\0"), 0)
        for part in parts:
            outputs += sessions.receive(stored(*part), 0)
        *before, answer = (o for o in outputs if isinstance(o, Window | Silence | Flushed))
        cursors = [o.cursor for o in before if o.cursor is not None]
        assert len(cursors) == len(before) > 1
        assert max(cursors) <= Cursor(5, len(speech) // 2)
        assert answer.cursor == Cursor(6, 0, Mark(5, 5.0))
        for window in (o for o in before if isinstance(o, Window)):
            sessions.transcribed(window)
        (end,) = sessions.end_all()
        assert isinstance(end, Ended)
        assert end.cursor == Cursor(6, 0, Mark(5, 5.0))
