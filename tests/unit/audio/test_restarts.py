"""Producers that restart, and producers that share a stream: P-15 and P-28 one by one."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import pytest
from turns import checkpoint, chunk, ended, kinds, make, noise, received

from transcriber.audio.session import SessionOptions
from transcriber.audio.sessions import SessionOutput, Sessions
from transcriber.domain.chunks import ChunkEvent
from transcriber.domain.errors import Rejection
from transcriber.domain.events import Started
from transcriber.domain.measurements import Tallies
from transcriber.domain.timeline import Gap, Origin


def utterances(sessions: Sessions, *starts: float, same: bool = False) -> list[SessionOutput]:
    """Four seconds each, in chunks of 0.1 s as time goes by. Each starts from offset 0."""
    outputs = []
    for number, start in enumerate(starts):
        pcm = b"".join(noise(0 if same else 10 * number + second) for second in range(4))
        for at in range(0, 64_000, 1600):
            outputs += sessions.tick_stream("s", start + at / 16_000)
            outputs += sessions.receive(chunk("a", at, pcm[2 * at : 2 * at + 3200]), start + at / 16_000)
    return outputs


@pytest.mark.parametrize("pause", [0.0, 0.02, 3.0, 7.0])
def test_a_producer_that_restarts_its_offsets_is_heard(pause: float) -> None:
    """Three utterances of 4 s from offset 0 are three sessions, and no second of them is missing (P-15)."""
    sessions = make()
    outputs = utterances(sessions, *(n * (4 + pause) for n in range(3))) + sessions.end_all()
    assert [name for kind, name in kinds(outputs) if kind == "Started"] == ["a", "generated-1", "generated-2"]
    assert received(outputs) == [64_000] * 3
    assert not sessions.trimmed


def test_recording_sent_again_after_a_pause_is_heard_again() -> None:
    """Its bytes are the same. Offset 0 after a second without audio shows that the network did not repeat it."""
    sessions = make()
    assert received(utterances(sessions, 0, 5, 10, same=True) + sessions.end_all()) == [64_000] * 3
    sessions = make()
    assert received(utterances(sessions, 0, 4.5, same=True) + sessions.end_all()) == [64_000]
    assert sessions.trimmed == [Origin("s", "a")]


def test_a_restart_is_heard_though_its_first_chunk_was_lost() -> None:
    """It differs from the earlier audio, which nobody continues. Only chunks within a second are refused."""
    sessions = make()
    for second in range(4):
        sessions.receive(chunk("a", 16_000 * second, noise(second)), second)
    with pytest.raises(Rejection, match="Audio-Offset=1600"):
        sessions.receive(chunk("a", 1600, noise(9)), 3.5)
    assert kinds(sessions.receive(chunk("a", 17_600, noise(8)), 4.5))[1] == ("Started", "generated-1")


def test_restart_is_heard_by_a_daemon_that_came_late() -> None:
    """Nothing from before the session's start can be a repeat."""
    sessions = make()
    for second in range(5, 9):
        sessions.receive(chunk("a", 16_000 * second, noise(second)), second)
    assert kinds(sessions.receive(chunk("a", 0, noise(1)), 9)) == [("Ended", "a"), ("Started", "generated-1")]


def test_constant_zero_offsets_do_not_open_a_session_per_chunk() -> None:
    """A producer that forgets to count is told so with each chunk. Only its first chunk is heard."""
    sessions = make()
    refused = 0
    for n in range(200):
        try:
            sessions.receive(chunk("a", 0, noise(n)[:3200]), n / 10)
        except Rejection as rejection:
            refused += rejection.reason == "overlap"
    assert refused == 199
    assert received(sessions.end_all()) == [1600]


def test_repeated_audio_is_trimmed_counted_and_named_once() -> None:
    """The chunks' bounds may differ, and a part of the audio may be new."""
    ids, tallies = itertools.count(), Tallies()
    sessions = Sessions(SessionOptions(), lambda: str(next(ids)), tallies)
    pcm = noise(1) + noise(2)
    sessions.receive(chunk("a", 0, pcm[:32_000]), 0)
    for _ in range(2):
        sessions.receive(chunk("a", 4001, pcm[8002:20_002]), 0)
    sessions.receive(chunk("a", 12_000, pcm[24_000:]), 0)
    assert tallies.samples_trimmed.total() == 2 * 6000 + 4000
    assert sessions.trimmed == [Origin("s", "a")]
    assert received(sessions.end_all()) == [32_000]


def test_start_far_behind_the_head_is_a_restarted_producer() -> None:
    """More than 10 s back opens a generated session.

    Up to 10 s is an overlap, trimmed where audio was heard already.
    """
    sessions = make()
    sessions.receive(chunk("a", 9 * 16_000), 0)
    sessions.receive(chunk("a", 20 * 16_000), 0)  # head at 21 s
    assert kinds(sessions.receive(chunk("a", 11 * 16_000), 0)) == []
    outputs = sessions.receive(chunk("a", 10 * 16_000), 0)
    assert kinds(outputs) == [("Ended", "a"), ("Started", "generated-1")]
    assert kinds(sessions.receive(chunk("a", 11 * 16_000), 0)) == []
    assert ended(sessions.end_all()).account.received == 32_000


def both(sessions: Sessions, first: str, second: str, *, began: float = 2.0, until: float = 10.0) -> Counter[str]:
    """Two producers in chunks of 0.1 s, the second one later.

    Counts sessions started, gaps, and rejections by reason.
    """
    told: Counter[str] = Counter()
    for n in range(round(until * 10)):
        for session, begin, seed in ((first, 0.0, 100), (second, began, 200)):
            at = n - round(begin * 10)
            if at < 0:
                continue
            pcm = noise(seed + at // 10)[3200 * (at % 10) :][:3200]
            try:
                outputs = sessions.receive(chunk(session, 1600 * at, pcm), n / 10)
            except Rejection as rejection:
                told[rejection.reason] += 1
                outputs = sessions.reject("s", session, rejection)
            told.update(type(o).__name__ for o in outputs if isinstance(o, Started | Gap))
    return told


def test_newer_of_two_producers_with_own_sessions_is_heard() -> None:
    """Every chunk of the older one is rejected with an event, and opens no session (P-16)."""
    sessions = make()
    assert both(sessions, "old", "new") == {"Started": 2, "superseded": 79}
    assert sessions._tallies.audio.total("received") == 33_600 + 128_000


@pytest.mark.parametrize("began", [2.0, 30.0])
def test_newer_of_two_producers_in_one_session_is_heard(began: float) -> None:
    """Their offsets tell them apart. Those of the older one are no jump ahead of the newer one's."""
    sessions = make()
    told = both(sessions, "same", "same", began=began, until=began + 8)
    assert told == {"Started": 2, "superseded": 79}
    assert sessions._tallies.audio.total("received") == round(began * 16_000) + 1600 + 128_000


def test_one_of_two_simultaneous_producers_is_contradicted() -> None:
    """Neither is the newer one. One is heard, and the other one's chunks are overlaps."""
    sessions = make()
    assert both(sessions, "same", "same", began=0.0) == {"Started": 1, "overlap": 100}


def test_older_producer_is_heard_once_either_falls_silent() -> None:
    """The newer one is silent for STREAM_TIMEOUT_SECS or has ended, or the older one returns after such a silence."""
    for wait, end in ((5.0, None), (0.0, ChunkEvent.END)):
        sessions = make(stream_timeout=5)
        sessions.receive(chunk("old"), 0)
        sessions.receive(chunk("new"), 1)
        with pytest.raises(Rejection, match="Audio-Session='old': 'new' began later"):
            sessions.receive(chunk("old"), 2)
        sessions.receive(chunk("new", event=end), 3)
        assert kinds(sessions.receive(chunk("old"), 3 + wait))[-1] == ("Started", "old.2")
    sessions = make(stream_timeout=5)
    sessions.receive(chunk("old"), 0)
    for now in range(1, 6):
        sessions.receive(chunk("new"), now)
    assert kinds(sessions.receive(chunk("old"), 5)) == [("Ended", "new"), ("Started", "old.2")]


def test_superseded_producers_are_known_to_another_daemon() -> None:
    """The checkpoint has them. After a restart no older one takes the stream back, and no name is given out twice."""
    sessions = make(stream_timeout=5)
    sessions.receive(chunk("old"), 100)
    started = next(o for o in sessions.receive(chunk("a"), 100) if isinstance(o, Started))
    assert started.older == ("old",)
    sessions = make(stream_timeout=5)
    sessions.resume(replace(checkpoint(), older=started.older), 5000)
    with pytest.raises(Rejection, match="superseded"):
        sessions.receive(chunk("old"), 101)
    assert kinds(sessions.receive(chunk("old"), 107))[-1] == ("Started", "old.2")


@pytest.mark.parametrize("away", [None, 0.5, 400.0])
def test_restart_is_decided_by_message_time_in_every_daemon(away: float | None) -> None:
    """A daemon that resumes from a checkpoint decides like one that was there all the time (P-25)."""
    sessions = make()
    sessions.receive(chunk("a", 0, noise(1)), 100)
    if away is not None:
        sessions = make()
        sessions.resume(checkpoint(), 100.0 + away)
        assert kinds(sessions.tick(101.0 + away)) == []
    assert kinds(sessions.tick_stream("s", 110)) == []
    assert kinds(sessions.receive(chunk("a", 0, noise(1)), 110)) == [("Ended", "a"), ("Started", "generated-1")]
    assert kinds(sessions.tick_stream("s", 1000)) == [("Ended", "generated-1")]


def test_session_that_timed_out_in_the_store_ends_in_any_daemon() -> None:
    """A daemon that was away for the silence ends the session before the next chunk, like one that was there."""
    sessions = make(session_timeout=300)
    sessions.resume(checkpoint(), now=5000.0)
    assert kinds(sessions.tick_stream("s", 399)) == []
    assert kinds(sessions.tick_stream("s", 400)) == [("Ended", "a")]
