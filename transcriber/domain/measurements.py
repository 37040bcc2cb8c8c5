"""The figures that travel to telemetry. The core fills them in and knows no metric by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

NAMED_STREAMS = 100  # streams that get figures of their own; the rest share one name, so that series stay bounded
OTHERS = "other"


class Tally:
    """Counts by stream and by one more key. Written by the event loop, read from the exporter's thread."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, Hashable]] = Counter()
        self._named: set[str] = set()

    def label(self, stream: str) -> str:
        """The stream's name while there are few of them, `OTHERS` for the ones that come later."""
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
    """What was noticed in a session's audio.

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
        """Return what was counted since the last call; None if nothing was."""
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
    chunks_filtered: Tally = field(default_factory=Tally)  # whose audio held no speech
    samples_repaired: Tally = field(default_factory=Tally)  # NaN, infinite or out of range
    samples_unmixed: Tally = field(default_factory=Tally)  # of one channel, as the mean of all would have lost them
    samples_trimmed: Tally = field(default_factory=Tally)  # sample frames that overlapped what was there
    jobs_enqueued: Tally = field(default_factory=Tally)
    jobs_dropped: Tally = field(default_factory=Tally)  # by gap reason
    decodes_repeated: Tally = field(default_factory=Tally)  # because the first pass was in doubt
    partials_published: Tally = field(default_factory=Tally)
    audio: Tally = field(default_factory=Tally)  # samples, by "received" or fate

    def add(self, stream: str, counts: Counts) -> None:
        """Take what was noticed in a stream's audio."""
        for tally, amount in (
            (self.samples_repaired, counts.repaired),
            (self.samples_unmixed, counts.unmixed),
            (self.samples_trimmed, counts.trimmed),
            (self.chunks_filtered, counts.filtered),
        ):
            if amount:
                tally.add(stream, amount=amount)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Where the daemon stands at this moment. Seconds; `busy` is the engine's whole running time so far."""

    queue_depth: int
    queue_capacity: int
    busy: float
    rtf: float
    buffered: float
    pending: float = 0.0  # received, and without a fate yet
    max_latency: float = 0.0  # the promise
    connected: bool = False  # to NATS
    reconnects: int = 0
    lag_chunks: int = 0  # stored and not taken yet
    lag_seconds: float = 0.0
