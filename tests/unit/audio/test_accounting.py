"""The accounting invariant as a property: every sample is settled once, whatever producer, network and queue do."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from turns import FORMATS, NOISE, sound

from transcriber.audio.segmenter import StreamOptions
from transcriber.audio.session import SessionOptions
from transcriber.audio.sessions import SessionOutput, Sessions
from transcriber.domain.chunks import AudioFormat, Chunk, ChunkEvent, DroppedChunk, Encoding
from transcriber.domain.errors import Rejection
from transcriber.domain.events import Ended, Flushed, Started
from transcriber.domain.measurements import Tallies
from transcriber.domain.timeline import Gap, GapReason, Window


@dataclass
class World:
    """A producer of one session, the sessions under test, and the results that the protocol's rules demand."""

    audio_format: AudioFormat
    first: int
    sessions: Sessions = field(init=False)
    tallies: Tallies = field(default_factory=Tallies)
    now: float = 0.0
    frame: int = field(init=False)  # the producer's clock
    head: int | None = None  # where the last accepted chunk ended, in source frames
    holes: dict[GapReason, int] = field(default_factory=dict)
    rejected: bool = False
    outputs: list[SessionOutput] = field(default_factory=list)
    waiting: list[Window] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    dropped: dict[GapReason, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.frame = self.first
        ids = (f"generated-{n}" for n in itertools.count())
        self.sessions = Sessions(SessionOptions(StreamOptions(window_secs=2.0)), lambda: next(ids), self.tallies)

    def position(self, frame: int) -> int:
        return round(frame * 16_000 / self.audio_format.rate)

    def take(self, outputs: list[SessionOutput]) -> None:
        for output in outputs:
            if isinstance(output, Window):
                self.waiting.append(output)
                self.windows.append(output)
            else:
                self.outputs.append(output)
        for _, account in self.sessions.accounts():
            assert account.received == (
                account.transcribed + account.silent + sum(account.gap.values()) + account.pending
            )

    def chunk(self, offset: int, frames: int, event: ChunkEvent | None = None) -> Chunk:
        return Chunk("s", self.audio_format, sound(self.audio_format, offset, frames), "run", offset, event)

    def expect(self, offset: int, frames: int) -> None:
        """Note what an accepted chunk means for the account."""
        if self.head is None:
            self.head = self.start = offset
        elif offset > self.head:
            reason = GapReason.UNDECODABLE if self.rejected else GapReason.LOST_UPSTREAM
            hole = self.position(offset) - self.position(self.head)
            self.holes[reason] = self.holes.get(reason, 0) + hole
            self.head = offset
        self.head = max(self.head, offset + frames)
        self.rejected = False

    def send(self, frames: int, back: int = 0, event: ChunkEvent | None = None) -> None:
        """One chunk; `back` frames of it were sent before."""
        offset = max(self.first, self.frame - back)
        frames += self.frame - offset
        if self.head is None and not frames:
            outputs = self.sessions.receive(self.chunk(offset, 0, event), self.now)
            assert [type(output) for output in outputs] == [Flushed] * (event is ChunkEvent.FLUSH)
            return
        self.expect(offset, frames)
        self.take(self.sessions.receive(self.chunk(offset, frames, event), self.now))
        self.frame = max(self.frame, offset + frames)

    def lose(self, frames: int) -> None:
        self.frame += frames

    def reject(self, frames: int) -> None:
        self.take(self.sessions.reject("s", "run", Rejection("encoding", "a chunk that nobody can decode")))
        self.rejected = self.head is not None
        self.frame += frames

    def skip(self, frames: int) -> None:
        offset = self.frame
        new = self.head is None
        self.expect(offset, 0)
        skipped = DroppedChunk(Chunk("s", self.audio_format, b"", "run", offset), frames)
        self.take(self.sessions.skip(skipped, self.now))
        if new or frames:
            assert self.head is not None
            lag = self.position(offset + frames) - self.position(offset)
            self.holes[GapReason.LAG] = self.holes.get(GapReason.LAG, 0) + lag
            self.head = max(self.head, offset + frames)
        self.frame += frames

    def look(self) -> None:
        """Look at open windows as partials do. That decides nothing."""
        seen, known = self.sessions.peek("s"), self.sessions.open_window("s")
        assert seen is None or (known is not None and len(seen.samples) <= known[2])

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.sessions.tick(self.now))

    def settle(self, index: int, reason: GapReason | None) -> None:
        """The worker or a full queue decides any one waiting window."""
        if not self.waiting:
            return
        window = self.waiting.pop(index % len(self.waiting))
        if reason is None:
            self.take(self.sessions.transcribed(window))
        else:
            self.dropped[reason] = self.dropped.get(reason, 0) + window.end - window.start
            self.take(self.sessions.dropped(window, reason))


FRAMES = st.integers(1, 30_000)
STEPS = st.one_of(
    st.tuples(st.just("send"), FRAMES),
    st.tuples(st.just("send"), FRAMES),
    st.tuples(st.just("send"), FRAMES, st.integers(0, 40_000)),
    st.tuples(
        st.just("send"), st.integers(0, 5000), st.just(0), st.sampled_from([ChunkEvent.FLUSH, ChunkEvent.KEEPALIVE])
    ),
    st.tuples(st.just("lose"), FRAMES),
    st.tuples(st.just("reject"), FRAMES),
    st.tuples(st.just("skip"), FRAMES),
    st.tuples(st.just("look")),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 6.0])),
    st.tuples(
        st.just("settle"), st.integers(0, 9), st.sampled_from([None, GapReason.QUEUE_FULL, GapReason.ENGINE_ERROR])
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(FORMATS), st.integers(1, 10**9), st.lists(STEPS, min_size=1, max_size=40))
@example(FORMATS[0], 1, [("lose", 1), ("send", 15), ("send", 1, 16)])  # a repeat that begins before the session
def test_every_sample_that_arrived_is_settled_exactly_once(
    audio_format: AudioFormat, first: int, steps: list[tuple]
) -> None:
    """Over random chunkings, losses, duplicates, flushes and a full queue, the fates sum to what was received."""
    world = World(audio_format, first)
    for name, *arguments in steps:
        getattr(world, name)(*arguments)
    world.send(100)
    world.take(world.sessions.end_all())
    while world.waiting:
        world.settle(0, GapReason.SHUTDOWN)

    ended = [o for o in world.outputs if isinstance(o, Ended)]
    assert [o.origin.session for o in world.outputs if isinstance(o, Started)] == ["run"]
    assert len(ended) == 1
    assert isinstance(world.outputs[-1], Ended)
    account = ended[0].account
    assert world.head is not None
    assert account.received == world.position(world.head) - world.position(world.start)
    assert account.pending == 0
    assert account.received == account.transcribed + account.silent + sum(account.gap.values())
    for reason in GapReason:
        expected = world.holes.get(reason, 0) + world.dropped.get(reason, 0)
        assert account.gap.get(reason, 0) == expected, reason
    check_outputs(world, account.gap)
    check_tallies(world, account.received)


def check_outputs(world: World, gaps: dict[GapReason, int]) -> None:
    """Published gaps add up to the account's, and windows and holes never overlap."""
    published: dict[GapReason, int] = {}
    for gap in (o for o in world.outputs if isinstance(o, Gap)):
        published[gap.reason] = published.get(gap.reason, 0) + gap.end - gap.start
    assert published == gaps
    windows = {(w.start, w.end) for w in world.windows}
    holes = {(g.start, g.end) for g in world.outputs if isinstance(g, Gap)} - windows
    intervals = sorted(windows | holes)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(intervals))
    assert [w.sequence for w in world.windows] == list(range(len(world.windows)))
    for window in world.windows:
        assert len(window.samples) == window.end - window.start <= 32_000


def check_tallies(world: World, received: int) -> None:
    """The metrics agree with the account."""
    counts = {fate: n for (_, fate), n in world.tallies.audio.by_stream().items()}
    assert counts.pop("received") == received
    assert sum(counts.values()) == received


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FORMATS),
    st.lists(st.integers(0, 200_000), max_size=12),
    st.booleans(),
)
def test_any_split_of_the_same_pcm_gives_the_same_windows(
    audio_format: AudioFormat, cuts: list[int], offsets: bool
) -> None:
    """Chunk bounds leave no trace in the windows: same bounds, same samples, same silence."""
    frames = 200_000

    def windows(borders: list[int]) -> list[Window]:
        world = World(audio_format, 0)
        for begin, end in itertools.pairwise([0, *borders, frames]):
            if end > begin:
                whole = world.chunk(0, frames)
                size = audio_format.frame_bytes
                pcm = whole.pcm[begin * size : end * size]
                chunk = Chunk("s", audio_format, pcm, "run", begin if offsets else None)
                world.take(world.sessions.receive(chunk, 0.0))
                world.look()
        world.take(world.sessions.end_all())
        return world.windows

    whole, split = windows([]), windows(sorted(cuts))
    assert whole
    assert [(w.start, w.end) for w in whole] == [(w.start, w.end) for w in split]
    for a, b in zip(whole, split, strict=True):
        np.testing.assert_array_equal(a.samples, b.samples)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FORMATS), st.integers(1, 60_000), st.booleans()), min_size=2, max_size=10))
def test_a_change_of_format_keeps_the_timeline(parts: list[tuple[AudioFormat, int, bool]]) -> None:
    """The producer changes its rate in mid-session and counts offsets in time. No hole and no overlap follow."""
    world = World(FORMATS[0], 0)
    seconds = 0.0
    for audio_format, frames, _ in parts:
        offset = round(seconds * audio_format.rate)
        chunk = Chunk("s", audio_format, NOISE[: frames * audio_format.frame_bytes], "run", offset)
        assert chunk.frames == frames
        world.take(world.sessions.receive(chunk, 0.0))
        seconds = (offset + frames) / audio_format.rate
    world.take(world.sessions.end_all())
    while world.waiting:
        world.settle(0, None)
    account = next(o for o in world.outputs if isinstance(o, Ended)).account
    assert account.gap == {}
    assert abs(account.received - seconds * 16_000) <= 1 + 16_000 / 8_000


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([AudioFormat(Encoding.S16LE, 16_000, 1), AudioFormat(Encoding.S16LE, 48_000, 2)]),
    st.lists(st.integers(0, 200_000), max_size=12),
    st.sampled_from([-1.0, 0.0, 1.0]),
    st.sampled_from([(0.0, 0.0), (0.01, 0.0), (0.0, 0.014), (0.01, 0.014)]),
)
def test_windows_over_hum_or_in_opposite_phase_ignore_the_split(
    audio_format: AudioFormat, cuts: list[int], gain: float, under: tuple[float, float]
) -> None:
    """The detector's filter and the choice of a channel follow positions, not chunks."""
    frames = 200_000
    bursts = np.frombuffer(NOISE, "<i2")[:frames] / 32768
    below = under[0] + under[1] * np.sin(2 * np.pi * 50 * np.arange(frames) / audio_format.rate)
    channels = np.stack([bursts + below, gain * bursts + below], axis=1)[:, : audio_format.channels]
    pcm = (channels * 32767).astype("<i2").tobytes()

    def windows(borders: list[int]) -> list[Window]:
        world = World(audio_format, 0)
        for begin, end in itertools.pairwise([0, *borders, frames]):
            part = pcm[begin * audio_format.frame_bytes : end * audio_format.frame_bytes]
            world.take(world.sessions.receive(Chunk("s", audio_format, part, "run", begin), 0.0) if part else [])
            world.look()
        world.take(world.sessions.end_all())
        opposite = gain < 0 and audio_format.channels == 2
        assert bool(world.tallies.samples_unmixed.total()) == bool(world.sessions.unmixed) == opposite
        return world.windows

    whole, split = windows([]), windows(sorted(cuts))
    assert whole
    assert [(w.start, w.end) for w in whole] == [(w.start, w.end) for w in split]
    for a, b in zip(whole, split, strict=True):
        np.testing.assert_array_equal(a.samples, b.samples)
