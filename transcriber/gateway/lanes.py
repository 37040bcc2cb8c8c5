"""Where live streams go: a lane for the default, and one for each group of daemons that there is (P-40)."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING

from transcriber.protocol.partitions import MOST_PARTITIONS, audio_subject, group_of, partition_of
from transcriber.protocol.routing import model_subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from transcriber.broker.direct import DirectLine
    from transcriber.gateway.workers import Worker
    from transcriber.protocol.partitions import FleetOptions

log = logging.getLogger(__name__)

_FRESH_SECS = 10.0  # for so long a partition may be without owner: a member's lease, and as much again to take over
_TRIES = 64  # names: with nine of ten partitions alone, all of them fail once in 800 times
_NOBODY = b"NATS/1.0 503"  # what the server answers when nobody is subscribed


class Lane:
    """The workers of one group, and the subjects of their streams. `serving`: whether any worker is there.

    With partitions, it knows which of them have no owner, as far as the server has said so. Audio that names an inbox
    is answered by the server when nobody hears it. That takes milliseconds, where a dead member's lease takes seconds.
    `deserted` gets the name of such a stream.
    """

    def __init__(
        self, line: DirectLine, deserted: Callable[[bytes], object], group: str = "", partitions: int | None = None
    ) -> None:
        """An empty `group` is the default. `partitions`: of the group's fleet; None without one."""
        self.group = group
        self.partitions = partitions
        self.serving = False
        self.workers: Sequence[Worker] = ()
        self.models: frozenset[str | None] = frozenset()  # in the form of `model_subject`
        self._deserted = deserted
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._alone: dict[int, float] = {}  # by partition: when nobody heard it
        if partitions is not None:
            line.listen(f"{self._inbox}.*", self._take)

    @property
    def room(self) -> bool:
        """Whether one of its workers takes another stream."""
        return any(worker.room for worker in self.workers)

    @property
    def wait(self) -> float:
        """Seconds until the least busy of its workers would begin with new speech."""
        return min((worker.estimated_wait for worker in self.workers), default=0.0)

    def know(self, workers: Sequence[Worker]) -> bool:
        """Take note of its workers. Returns whether some are there again after none was."""
        before, self.serving = self.serving, bool(workers)
        self.workers, self.models = workers, frozenset(model_subject(worker.model) for worker in workers)
        if before != self.serving and self.group:
            level, text = (logging.INFO, "there") if self.serving else (logging.WARNING, "gone")
            log.log(level, "a group is %s", text, extra={"group": self.group, "workers": len(workers)})
        return self.serving and not before

    def subject(self, stream: str) -> bytes:
        """Where a stream's audio goes."""
        return audio_subject(stream, self.group, self.partitions).encode()

    def asking(self, stream: str) -> bytes:
        """The same, for a message that asks whether anybody is there. Only with partitions."""
        return self.subject(stream) + f" {self._inbox}.{stream}".encode()

    def name(self, make: Callable[[], str]) -> str | None:
        """Return a name whose partition may have an owner; None if none is known that may."""
        if self.partitions is None:
            return None
        since = asyncio.get_running_loop().time() - _FRESH_SECS
        for _ in range(_TRIES):
            name = make()
            if self._alone.get(partition_of(name, self.partitions), since) <= since:
                return name
        return None

    def _take(self, subject: bytes, block: bytes, _payload: bytes) -> None:
        if block.startswith(_NOBODY) and self.partitions is not None:
            stream = subject.rpartition(b".")[2]
            self._alone[partition_of(stream.decode(), self.partitions)] = asyncio.get_running_loop().time()
            self._deserted(stream)


class Lanes:
    """All lanes. One that has lost its workers stays, as streams may wait there for them to come back."""

    def __init__(self, fleet: FleetOptions | None, line: DirectLine, deserted: Callable[[bytes], object]) -> None:
        """`fleet`: that of the default. The others say what they are."""
        self._line = line
        self._told = deserted
        self.default = Lane(line, deserted, partitions=None if fleet is None else fleet.partitions)
        self._groups: dict[tuple[str, int | None], Lane] = {}

    def update(self, workers: Iterable[Worker]) -> set[Lane]:
        """Take note of the workers that answer. Returns the lanes that have some again after they had none."""
        found: dict[Lane, list[Worker]] = {lane: [] for lane in (self.default, *self._groups.values())}
        for worker in workers:
            if (lane := self._lane(worker)) is not None:
                found.setdefault(lane, []).append(worker)
        return {lane for lane, there in found.items() if lane.know(there)}

    def of(self, model: str | None) -> Lane:
        """Where a stream goes that asks for a model, as P-40 has it."""
        wanted = model_subject(model) if model else None
        if wanted is None or self.default.models == {wanted}:
            return self.default
        having = [lane for lane in self._groups.values() if wanted in lane.models]
        return min(having, key=lambda lane: (not lane.room, lane.wait), default=self.default)

    def may_take(self, model: str | None) -> Sequence[Worker]:
        """The workers of which one must have room for a stream. No `model`: the client may say later which it wants."""
        lanes = (self.default, *self._groups.values()) if model is None else (self.of(model),)
        return [worker for lane in lanes for worker in lane.workers]

    def _lane(self, worker: Worker) -> Lane | None:
        """Where a worker hears streams; None if it hears one alone, whose name no client of ours gets."""
        group = group_of(worker.subject)
        if not group:
            return None if group is None else self.default
        if worker.partitions is not None and not 1 <= worker.partitions <= MOST_PARTITIONS:
            return None  # none of this protocol's
        place = group, worker.partitions
        if place not in self._groups:
            self._groups[place] = Lane(self._line, self._told, *place)
        return self._groups[place]
