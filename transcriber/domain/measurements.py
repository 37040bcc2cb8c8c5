"""The figures for telemetry. The core counts them and knows no metric's name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

NAMED_STREAMS = 100  # streams with figures of their own; the others share one name, which bounds the number of series
OTHERS = "other"


class Tally:
    """Counts by stream and by one more key. Written by the event loop, read from the exporter's thread."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, Hashable]] = Counter()
        self._named: set[str] = set()

    def label(self, stream: str) -> str:
        """The name of one of the first `NAMED_STREAMS` streams, `OTHERS` for later ones."""
        if stream in self._named:
            return stream
        if len(self._named) < NAMED_STREAMS:
            self._named.add(stream)
            return stream
        return OTHERS

    def add(self, stream: str, key: Hashable = None, amount: int = 1) -> None:
        self._counts[self.label(stream), key] += amount

    def by_stream(self) -> dict[tuple[str, Hashable], int]:
        """A copy, made in one step under the interpreter's lock."""
        return dict(self._counts)

    def total(self, key: Hashable = None) -> int:
        return sum(n for (_, k), n in self.by_stream().items() if k == key)

    def kinds(self) -> set[Hashable]:
        return {key for _, key in self.by_stream()}

    def grand_total(self) -> int:
        return sum(self.by_stream().values())


@dataclass(slots=True)
class Counts:
    """Counts of irregularities in a session's audio.

    - `repaired`: float samples that were NaN, infinite or out of range.
    - `unmixed`: sample frames of which one channel was taken, because the mean would have lost it.
    - `trimmed`: sample frames that overlapped what was there.
    - `filtered`: chunks in which no speech was found.
    """

    repaired: int = 0
    unmixed: int = 0
    trimmed: int = 0
    filtered: int = 0

    def take(self) -> Counts | None:
        """Return the counts since the last call, and reset them; None if all are 0."""
        if not (self.repaired or self.unmixed or self.trimmed or self.filtered):
            return None
        taken = Counts(self.repaired, self.unmixed, self.trimmed, self.filtered)
        self.repaired = self.unmixed = self.trimmed = self.filtered = 0
        return taken


@dataclass(slots=True, kw_only=True)
class Tallies:
    """Everything the pipeline counts. Keys: a rejection's reason, a gap's reason, an audio fate."""

    chunks_received: Tally = field(default_factory=Tally)
    chunks_dropped: Tally = field(default_factory=Tally)  # by reason
    chunks_filtered: Tally = field(default_factory=Tally)  # without speech
    samples_repaired: Tally = field(default_factory=Tally)  # NaN, infinite or out of range
    samples_unmixed: Tally = field(default_factory=Tally)  # sample frames of one channel, as channels cancel out
    samples_trimmed: Tally = field(default_factory=Tally)  # sample frames that were sent again
    jobs_enqueued: Tally = field(default_factory=Tally)
    jobs_dropped: Tally = field(default_factory=Tally)  # by gap reason
    decodes_repeated: Tally = field(default_factory=Tally)  # because the text was in doubt
    partials_published: Tally = field(default_factory=Tally)
    audio: Tally = field(default_factory=Tally)  # samples, by "received" or fate

    def add(self, stream: str, counts: Counts) -> None:
        """Add the counts of a stream's audio."""
        for tally, amount in (
            (self.samples_repaired, counts.repaired),
            (self.samples_unmixed, counts.unmixed),
            (self.samples_trimmed, counts.trimmed),
            (self.chunks_filtered, counts.filtered),
        ):
            if amount:
                tally.add(stream, amount=amount)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFigures:
    """A fleet as one of its members sees it. `load` and `capacity` are streams, over all members."""

    members: int = 0
    partitions: int = 0  # that this member works on
    without_owner: int = 0
    moves: int = 0  # partitions that this member has begun to work on since its start
    load: float = 0.0
    capacity: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The daemon's figures at this moment. Times in seconds; `busy` is the engine's total running time."""

    queue_depth: int
    queue_capacity: int
    busy: float
    rtf: float
    buffered: float
    pending: float = 0.0  # received, without a fate yet
    max_latency: float = 0.0  # the promise
    connected: bool = False  # to NATS
    reconnects: int = 0
    gpu: bool = False  # the engine computes on one
    lag_chunks: int = 0  # stored, not taken yet
    lag_seconds: float = 0.0
    fleet: FleetFigures | None = None  # None: no member of one
