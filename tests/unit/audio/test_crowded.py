"""The accounting invariant for producers that restart, repeat themselves, or share a stream."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from turns import FORMATS, sound

from transcriber.audio.segmenter import StreamOptions
from transcriber.audio.session import SessionOptions
from transcriber.audio.sessions import SessionOutput, Sessions
from transcriber.domain.chunks import Chunk
from transcriber.domain.errors import Rejection
from transcriber.domain.events import Ended, Started
from transcriber.domain.measurements import Tallies
from transcriber.domain.timeline import Gap, Window


def probes(offset: int, pcm: bytes) -> list[int]:
    """The samples that tell a repeat from new audio: one in 10 ms."""
    return np.frombuffer(pcm, "<i2")[-offset % 160 :: 160].tolist()


class Crowd:
    """Several producers on one stream: each may begin again, repeat itself, lose chunks, or be one of two that share.

    Every frame that is sent is received, trimmed because it was here, or refused with an event. None just goes away.
    """

    def __init__(self) -> None:
        ids = (f"generated-{n}" for n in itertools.count())
        self.tallies = Tallies()
        self.sessions = Sessions(SessionOptions(StreamOptions(window_secs=2.0)), lambda: next(ids), self.tallies)
        self.now = 0.0
        self.frames = [0, 0, 0]
        self.shifts = [0, 7001, 13_003]
        self.windows: list[Window] = []
        self.runs: set[int] = set()  # the sounds in the stream's session
        self.outputs: list[SessionOutput] = []

    def take(self, outputs: list[SessionOutput]) -> None:
        self.windows += [o for o in outputs if isinstance(o, Window)]
        self.outputs += [o for o in outputs if not isinstance(o, Window)]
        for _, account in self.sessions.accounts():
            settled = account.transcribed + account.silent + sum(account.gap.values())
            assert account.received == settled + account.pending

    def figures(self) -> tuple[int, int, int]:
        lost = sum(o.end - o.start for o in self.outputs if isinstance(o, Gap))
        return self.tallies.audio.total("received"), self.tallies.samples_trimmed.total(), lost

    def send(self, who: int, frames: int, back: int) -> None:
        """One chunk of one producer, `back` frames of which it has sent before. The first two share an id."""
        offset = max(0, self.frames[who] - back)
        frames += self.frames[who] - offset
        self.frames[who] = offset + frames
        pcm = sound(FORMATS[0], offset, frames, self.shifts[who])
        before, here, refused = self.figures(), len(self.outputs), None
        try:
            chunk = Chunk("s", FORMATS[0], pcm, "other" if who == 2 else "shared", offset)
            self.take(self.sessions.receive(chunk, self.now))
        except Rejection as rejection:
            refused = rejection
        if refused is not None:
            assert refused.reason in {"overlap", "superseded"}
            assert self.figures() == before
            self.take(self.sessions.reject("s", chunk.session, refused))
            assert len(self.outputs) == here + 1
            return
        received, trimmed, lost = (now - then for now, then in zip(self.figures(), before, strict=True))
        assert received - lost + trimmed == frames
        if any(isinstance(o, Started) for o in self.outputs[here:]):
            self.runs = set()
            assert not trimmed
        if not any(isinstance(o, Gap) for o in self.outputs):  # else it may lie in a hole, of which nobody knows
            same = [sound(FORMATS[0], offset, trimmed, shift) for shift in self.runs]
            heard = offset + trimmed - max(offset, self.sessions.current["s"].ledger.start)
            assert heard < 176 or probes(offset, pcm[: 2 * trimmed]) in [probes(offset, one) for one in same]
        self.runs.add(self.shifts[who])
        self.now += frames / 16_000 / 2

    def restart(self, who: int, shift: int) -> None:
        self.frames[who] = 0
        self.shifts[who] = shift

    def lose(self, who: int, frames: int) -> None:
        self.frames[who] += frames

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.sessions.tick(self.now))


PRODUCER = st.integers(0, 2)
CROWDED = st.one_of(
    st.tuples(st.just("send"), PRODUCER, st.integers(1, 16_000), st.just(0)),
    st.tuples(st.just("send"), PRODUCER, st.integers(1, 16_000), st.just(0)),
    st.tuples(st.just("send"), PRODUCER, st.integers(1, 16_000), st.integers(0, 40_000)),
    st.tuples(st.just("restart"), PRODUCER, st.integers(0, 60_000)),
    st.tuples(st.just("lose"), PRODUCER, st.integers(1, 30_000)),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 6.0])),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(CROWDED, min_size=1, max_size=40))
@example([("lose", 0, 161), ("send", 0, 15, 0), ("send", 1, 176, 0)])  # 1 ms of it was heard: too little to compare
def test_every_frame_is_received_trimmed_or_refused(steps: list[tuple]) -> None:
    """Producers restart and repeat themselves. Three share a stream, two of them under one id."""
    crowd = Crowd()
    for name, *arguments in steps:
        getattr(crowd, name)(*arguments)
    crowd.take(crowd.sessions.end_all())
    for window in crowd.windows.copy():
        crowd.take(crowd.sessions.transcribed(window))
    ended = [o for o in crowd.outputs if isinstance(o, Ended)]
    assert len(ended) == len([o for o in crowd.outputs if isinstance(o, Started)])
    assert len({o.origin.session for o in ended}) == len(ended)
    assert sum(o.account.received for o in ended) == crowd.tallies.audio.total("received")
    assert all(o.account.pending == 0 for o in ended)


@settings(max_examples=60, deadline=None)
@given(st.lists(CROWDED, min_size=1, max_size=40), st.integers(0, 1000))
def test_outputs_depend_on_audio_and_message_time_alone(steps: list[tuple], start: int) -> None:
    """A replay of the same messages gives the same sessions, at any time and under any names."""
    crowds = Crowd(), Crowd()
    crowds[1].now = float(start)
    for crowd in crowds:
        for name, *arguments in steps:
            getattr(crowd, name)(*arguments)
        crowd.take(crowd.sessions.end_all())
    assert [w.start for w in crowds[0].windows] == [w.start for w in crowds[1].windows]
    assert [type(o) for o in crowds[0].outputs] == [type(o) for o in crowds[1].outputs]
