"""Which session a chunk belongs to, and when a session ends: P-14 and P-16 one by one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from turns import FORMAT, checkpoint, chunk, ended, kinds, make, noise

from transcriber.audio.session import SessionOptions
from transcriber.audio.sessions import Sessions
from transcriber.domain.chunks import AudioFormat, ChunkEvent, Encoding
from transcriber.domain.errors import Rejection
from transcriber.domain.events import Rejected, Started
from transcriber.domain.measurements import Tallies
from transcriber.domain.timeline import Gap, GapReason, Origin


def test_chunks_without_a_session_share_a_generated_one() -> None:
    """A producer that names no session gets one, and keeps it."""
    sessions = make()
    assert kinds(sessions.receive(chunk(), 0)) == [("Started", "generated-1")]
    assert kinds(sessions.receive(chunk(), 1)) == []
    assert ended(sessions.end_all()).account.received == 32_000


def test_new_session_id_ends_the_old_session() -> None:
    """The new session's account begins at zero."""
    sessions = make()
    sessions.receive(chunk("a"), 0)
    assert kinds(sessions.receive(chunk("b"), 0)) == [("Ended", "a"), ("Started", "b")]
    assert ended(sessions.end_all()).account.received == 16_000


def test_a_chunk_without_a_session_continues_the_named_one() -> None:
    """Without the header the session stays the same, so that a bare `flush` reaches it."""
    sessions = make()
    sessions.receive(chunk("a"), 0)
    assert kinds(sessions.receive(chunk(), 0)) == []


def test_later_chunks_of_an_ended_session_open_a_numbered_one() -> None:
    """After `run` come `run.2` and `run.3`. Each has its own account."""
    sessions = make()
    seen = []
    for _ in range(3):
        seen += kinds(sessions.receive(chunk("run", event=ChunkEvent.END), 0))
    assert seen == [
        ("Started", "run"),
        ("Ended", "run"),
        ("Started", "run.2"),
        ("Ended", "run.2"),
        ("Started", "run.3"),
        ("Ended", "run.3"),
    ]


@pytest.mark.parametrize("event", [ChunkEvent.END, ChunkEvent.KEEPALIVE])
def test_bare_event_for_a_closed_session_does_nothing(event: ChunkEvent) -> None:
    """A repeated `end`, or a keepalive after it, opens no empty session and leaves another one alone."""
    sessions = make()
    assert sessions.receive(chunk("a", pcm=b"", event=event), 0) == []
    sessions.receive(chunk("b"), 0)
    assert sessions.receive(chunk("a", pcm=b"", event=event), 0) == []
    assert sessions.active == 1


def test_the_last_audio_may_come_with_the_end() -> None:
    """An `end` with a payload settles that payload too."""
    sessions = make()
    outputs = sessions.receive(chunk("a", event=ChunkEvent.END), 0)
    assert ended(outputs).account.received == 16_000


def test_an_end_whose_offset_is_ahead_reports_the_lost_tail() -> None:
    """The producer says where it ended. So the loss of its last chunks is known."""
    sessions = make()
    sessions.receive(chunk("a", 0), 0)
    outputs = sessions.receive(chunk("a", 48_000, b"", ChunkEvent.END), 0)
    assert ended(outputs).account.gap == {GapReason.LOST_UPSTREAM: 32_000}


def test_stream_timeout_flushes_and_session_timeout_ends() -> None:
    """After five seconds without chunks the buffer is settled. After five minutes the session ends."""
    sessions = make(stream_timeout=5, session_timeout=300)
    sessions.receive(chunk("a"), 0)
    assert sessions.buffered > 0
    assert sessions.tick(4.9) == []
    assert sessions.buffered > 0
    sessions.tick(5)
    assert sessions.buffered == 0
    assert sessions.active == 1
    assert kinds(sessions.tick(299)) == []
    assert kinds(sessions.tick(300)) == [("Ended", "a")]


def test_keepalive_delays_the_end_of_the_session_only() -> None:
    """The last words come although the producer goes on sending keepalives (P-16)."""
    sessions = make(stream_timeout=5, session_timeout=8)
    sessions.receive(chunk("a"), 0)
    for now in (3, 6, 12):
        sessions.receive(chunk("a", pcm=b"", event=ChunkEvent.KEEPALIVE), now)
        assert kinds(sessions.tick(now + 3)) == []
    assert sessions.buffered == 0
    assert kinds(sessions.tick(20)) == [("Ended", "a")]


def test_repeated_audio_holds_no_window_open() -> None:
    """A producer that repeats its last chunk is as quiet as one that sends keepalives."""
    sessions = make(stream_timeout=5)
    sessions.receive(chunk("a", 16_000, noise(1)), 0)
    for now in (4, 8):
        sessions.receive(chunk("a", 16_000, noise(1)), now)
        sessions.tick(now + 1)
    assert sessions.buffered == 0


@pytest.mark.parametrize("event", list(ChunkEvent))
@pytest.mark.parametrize("offset", [None, 16_000])
def test_an_empty_message_changes_no_format(event: ChunkEvent, offset: int | None) -> None:
    """Without headers it would be 48 kHz by default. Its offset counts as those of the audio do."""
    sessions = make()
    sessions.receive(chunk("a", 0, noise(1)), 0)
    bare = chunk("a", offset, b"", event, audio_format=AudioFormat(Encoding.S16LE, 48_000, 1))
    bare.names_rate = False
    outputs = sessions.receive(bare, 0)
    if event is ChunkEvent.END:
        assert ended(outputs).account.gap == {}
        return
    assert (outputs == []) is (event is ChunkEvent.KEEPALIVE)
    assert sessions.format(Origin("s", "a")) == FORMAT
    sessions.receive(chunk("a", 16_000, noise(2)), 0)
    assert ended(sessions.end_all()).account.received == 32_000


def test_an_empty_message_may_give_its_offset_at_another_rate() -> None:
    """If its header names the rate, the length of the loss follows that rate."""
    sessions = make()
    sessions.receive(chunk("a", 0), 0)
    fast = AudioFormat(Encoding.S16LE, 48_000, 1)
    outputs = sessions.receive(chunk("a", 2 * 48_000, b"", ChunkEvent.END, audio_format=fast), 0)
    assert ended(outputs).account.gap == {GapReason.LOST_UPSTREAM: 16_000}


def test_jump_of_more_than_an_hour_is_rejected() -> None:
    """One broken offset must not become an hour of gap. A jump of exactly an hour is believed."""
    sessions = make()
    sessions.receive(chunk("a", 0), 0)
    with pytest.raises(Rejection) as caught:
        sessions.receive(chunk("a", 3601 * 16_000 + 1), 0)
    assert caught.value.reason == "offset"
    assert "57616001" in caught.value.detail
    gap = next(o for o in sessions.receive(chunk("a", 3601 * 16_000), 0) if isinstance(o, Gap))
    assert (gap.start, gap.end) == (16_000, 3601 * 16_000)


def test_the_timeline_starts_at_the_first_accepted_offset() -> None:
    """Audio from before the daemon came is no loss."""
    sessions = make()
    sessions.receive(chunk("a", 160_000), 0)
    account = ended(sessions.end_all()).account
    assert (account.received, account.gap) == (16_000, {})


def test_hole_is_undecodable_if_chunks_were_rejected_else_lost() -> None:
    """The reason depends on what came between the two chunks around the hole."""
    sessions = make()
    sessions.receive(chunk("a", 0), 0)
    assert sessions.reject("s", "a", Rejection("rate", "no such rate")) == [
        Rejected(stream="s", session="a", reason="rate", detail="no such rate")
    ]
    sessions.receive(chunk("a", 32_000), 0)
    sessions.receive(chunk("a", 80_000), 0)
    gap = ended(sessions.end_all()).account.gap
    assert gap == {GapReason.UNDECODABLE: 16_000, GapReason.LOST_UPSTREAM: 32_000}


def test_a_rejected_chunk_of_another_session_marks_no_hole() -> None:
    """A second producer's bad chunk does not explain the loss of the first."""
    sessions = make()
    sessions.receive(chunk("a", 0), 0)
    sessions.reject("s", "other", Rejection("rate", "no such rate"))
    sessions.receive(chunk("a", 32_000), 0)
    assert ended(sessions.end_all()).account.gap == {GapReason.LOST_UPSTREAM: 16_000}


def test_streams_above_the_limit_are_refused_until_one_ends() -> None:
    """MAX_STREAMS counts open sessions. An ended one makes room."""
    sessions = make(max_streams=2)
    sessions.receive(chunk(stream="s1"), 0)
    sessions.receive(chunk(stream="s2"), 0)
    with pytest.raises(Rejection) as caught:
        sessions.receive(chunk(stream="s3"), 0)
    assert caught.value.reason == "streams"
    assert "MAX_STREAMS=2" in caught.value.detail
    sessions.receive(chunk(stream="s1"), 0)
    sessions.receive(chunk(stream="s1", pcm=b"", event=ChunkEvent.END), 0)
    assert kinds(sessions.receive(chunk(stream="s3"), 0))[0][0] == "Started"


def test_a_flush_settles_everything_that_is_buffered() -> None:
    """After `flush` only queued windows are pending. The next chunk follows without a seam."""
    sessions = make()
    fast = AudioFormat(Encoding.S16LE, 48_000, 1)
    sessions.receive(chunk("a", audio_format=fast, pcm=bytes(2 * 4801)), 0)
    sessions.receive(chunk("a", pcm=b"", event=ChunkEvent.FLUSH, audio_format=fast), 0)
    ((_, account),) = sessions.accounts()
    assert (account.received, account.pending) == (1600, 0)
    sessions.receive(chunk("a", audio_format=fast, pcm=bytes(2 * 4799)), 0)
    account = ended(sessions.end_all()).account
    assert (account.received, account.gap) == (3200, {})


def test_no_name_is_given_out_twice_by_two_daemons() -> None:
    """The second one learns from a checkpoint which ids were used, also before the checkpoint's session."""
    first = make()
    for name in ("a", "b", "a", "b.2", None):
        outputs = first.receive(chunk(name, pcm=bytes(3200), event=ChunkEvent.END), 0)
    (started,) = (o for o in outputs if isinstance(o, Started))
    assert started.used == {"a": 2, "b": 1, "b.2": 1}
    second = make()
    at = replace(checkpoint(), origin=started.origin, requested_id=None, used=started.used, over=True)
    second.resume(at, 0)
    named = [second.receive(chunk(name, pcm=bytes(3200), event=ChunkEvent.END), 0)[0] for name in ("a", "a.2", "b")]
    assert [o.origin.session for o in named if isinstance(o, Started)] == ["a.3", "a.2.2", "b.3"]


def test_name_of_a_session_tells_how_often_its_id_was_used() -> None:
    """A checkpoint of an earlier version says no more."""
    sessions = make()
    sessions.resume(replace(checkpoint(), origin=Origin("s", "a.3"), over=True), 0)
    assert kinds(sessions.receive(chunk("a"), 0)) == [("Started", "a.4")]


def test_memory_of_ended_sessions_is_bounded() -> None:
    """A producer that invents a session per chunk does not fill the memory."""
    sessions = make()
    for n in range(10_050):
        sessions.receive(chunk(str(n), pcm=b"\0\0", event=ChunkEvent.END), 0)
    assert len(sessions._used._times) == 10_000
    assert not sessions._by_id


def test_session_with_opposite_channels_is_named_once() -> None:
    """The samples are counted each time. The next session is named again."""
    stereo = AudioFormat(Encoding.S16LE, 16_000, 2)
    one = np.random.default_rng(1).integers(-9000, 9000, 16_000)
    crossed = np.stack([one, -one], axis=1).astype("<i2").tobytes()
    ids, tallies = itertools.count(), Tallies()
    sessions = Sessions(SessionOptions(), lambda: str(next(ids)), tallies)
    for session in ("a", "a", "a", "b"):
        sessions.receive(chunk(session, pcm=crossed, audio_format=stereo), 0)
    sessions.end_all()
    assert [origin.session for origin in sessions.unmixed] == ["a", "b"]
    assert tallies.samples_unmixed.total() == 4 * 16_000
