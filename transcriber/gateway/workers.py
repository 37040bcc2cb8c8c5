"""What the workers say of themselves: their queues, their speed, their streams."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from transcriber.domain.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from transcriber.broker.asking import Asking
    from transcriber.broker.connection import Connection

log = logging.getLogger(__name__)

_SUBJECT = "$SRV.STATS.transcriber"  # what NATS' services API answers with each service's statistics
_BUSY_SECS = 1.0  # between two questions while a client is connected
_IDLE_SECS = 5.0  # while none is
_ANSWER_SECS = 0.4  # for the answers; a worker's event loop is never blocked for long
_MISSED = 2  # questions without an answer, after which a worker counts as gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One daemon's state, as it last told it. Seconds; None where an older daemon does not say."""

    id: str
    model: str = ""
    multilingual: bool = True  # whether the model knows more languages than English
    model_subject: str | None = None  # where it takes requests for its model (P-39)
    subject: str = "audio.*"  # where it takes audio
    partitions: int | None = None  # of its fleet
    depth: int = 0  # jobs that wait or run
    capacity: int = 0
    estimated_wait: float = 0.0
    max_latency: float | None = None
    rtf: float | None = None
    streams: int = 0
    max_streams: int | None = None
    busy: float | None = None  # of the time since its start, when its engine ran
    cpu: float | None = None  # of CPU time since its start
    memory: int | None = None  # bytes
    gpu_memory: int | None = None  # bytes

    @property
    def room(self) -> bool:
        """Whether it takes another stream or recording, and keeps its promise."""
        late = self.max_latency is not None and self.estimated_wait > self.max_latency
        full = 0 < self.capacity <= self.depth
        return not (late or full or (self.max_streams is not None and self.streams >= self.max_streams))


class WorkersView(Protocol):
    """The workers as they are known at present."""

    @property
    def all(self) -> Sequence[Worker]: ...

    async def ask(self) -> Sequence[Worker]:
        """Ask them now, unless that was done within the last second."""
        ...


class Workers:
    """Asks all workers again and again. `on_answers` is called after each question, and learns whether one is gone."""

    def __init__(
        self,
        connection: Connection,
        asking: Asking,
        busy: Callable[[], bool],
        on_answers: Callable[[bool], None],
    ) -> None:
        """`busy`: whether any client is connected."""
        self._connection = connection
        self._asking = asking
        self._busy = busy
        self._on_answers = on_answers
        self._known: dict[str, tuple[Worker, int]] = {}  # by id, with the number of the last answered question
        self._number = 0
        self._asked_at = 0.0
        self._under_way: asyncio.Task[None] | None = None

    @property
    def all(self) -> Sequence[Worker]:
        """The workers that answer."""
        return [worker for worker, _ in self._known.values()]

    @property
    def count(self) -> int:
        """How many answer."""
        return len(self._known)

    @property
    def reconnects(self) -> int:
        """How often NATS came back."""
        return self._connection.reconnects

    @property
    def connected(self) -> bool:
        """Whether NATS is there."""
        return self._connection.up

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await self._ask()
            patience = _BUSY_SECS if self._busy() else _IDLE_SECS
            due = self._asked_at + patience
            while (left := due - time.monotonic()) > 0:
                await asyncio.sleep(min(left, _BUSY_SECS))
                if self._busy():
                    due = min(due, self._asked_at + _BUSY_SECS)

    async def ask(self) -> Sequence[Worker]:
        """Return the workers, asked within the last second."""
        if time.monotonic() - self._asked_at >= _BUSY_SECS:
            await self._ask()
        return self.all

    async def _ask(self) -> None:
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._ask_once())
        await asyncio.shield(self._under_way)

    async def _ask_once(self) -> None:
        self._asked_at = time.monotonic()
        self._number += 1
        try:
            answers = await self._asking.ask_all(_SUBJECT, _ANSWER_SECS, expected=len(self._known))
        except RequestError:  # NATS is away, of which others tell
            return
        before = set(self._known)
        if answers is None:  # not even one that is too busy to answer
            self._known.clear()
        for answer in answers or ():
            if (worker := _worker(answer)) is not None:
                self._known[worker.id] = worker, self._number
        self._known = {id_: seen for id_, seen in self._known.items() if self._number - seen[1] < _MISSED}
        if before != set(self._known):
            log.log(logging.INFO if self._known else logging.WARNING, "workers: %d", len(self._known))
        self._on_answers(bool(before - set(self._known)))


def _worker(answer: bytes) -> Worker | None:
    """Read one service's statistics; None if they are none of a worker's."""
    try:
        said = json.loads(answer)
        data: Mapping[str, Any] = next((e["data"] for e in said["endpoints"] if isinstance(e.get("data"), dict)), {})
        return Worker(
            id=str(said["id"]),
            model=str(data.get("model", "")),
            multilingual=data.get("multilingual") is not False,
            model_subject=data.get("model_subject"),
            subject=str(data.get("subject") or "audio.*"),
            partitions=_whole(data.get("partitions")),
            depth=int(data.get("depth", 0)),
            capacity=int(data.get("capacity", 0)),
            estimated_wait=float(data.get("estimated_wait", 0.0)),
            max_latency=_number(data.get("max_latency")),
            rtf=_number(data.get("rtf")),
            streams=int(data.get("streams", 0)),
            max_streams=_whole(data.get("max_streams")),
            busy=_number(data.get("busy_seconds")),
            cpu=_number(data.get("cpu_seconds")),
            memory=_whole(data.get("memory")),
            gpu_memory=_whole(data.get("gpu_memory")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        log.warning("a worker's statistics could not be read", extra={"limited": True})
        return None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) else None
