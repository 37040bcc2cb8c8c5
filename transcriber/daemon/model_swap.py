"""Another model without a restart, on SIGHUP or on request. When it is refused, the one at work goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transcriber.domain.errors import ModelError, NotEnoughMemory, Rejection, Stopped, TranscriberError
from transcriber.domain.events import Swapped
from transcriber.models import catalogue, store
from transcriber.protocol.outgoing import Message, encode_swapped
from transcriber.worker import memory
from transcriber.worker.handover import ModelHandover

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from transcriber.worker.capacity import Capacity
    from transcriber.worker.engine import Engine
    from transcriber.worker.queue import JobQueue
    from transcriber.worker.thread import WhisperThread

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ALLOWED = (
    "a name as in `transcriber models list`, or without a path that of a file that ends in .bin "
    f"or of a folder that begins with {catalogue.FOLDER_PREFIX}"
)


@dataclass(frozen=True, slots=True)
class Models:
    """Which models there may be. `configured` is the file that the settings name, `sha256` the only one they allow.

    A request gives a name, never a path: of what the daemon's operator has put beside the configured model, or pulled
    into `directory`. With a path, whoever may publish could make the daemon open any file of its host, and learn from
    the answer whether it is there and how it begins.
    """

    configured: Path
    sha256: str | None = None
    directory: Path | None = None

    def find(self, name: str) -> Path:
        """Return the file of this name. Raises `Rejection` when there is none, or it may not be asked for."""
        known = catalogue.MODELS.get(name)
        if known is not None and known.bundled:
            return store.bundled(known.filename)
        filename = known.filename if known is not None else name
        if not _NAME.fullmatch(name) or not (filename.endswith(".bin") or filename.startswith(catalogue.FOLDER_PREFIX)):
            raise Rejection("400", f"model={name[:160]!r} is not allowed: {_ALLOWED}")
        places = [place for place in (self.configured.parent, self.directory) if place is not None]
        path = next((place / filename for place in places if (place / filename).exists()), None)
        if path is None:
            raise Rejection("400", f"there is no {filename} in {' or '.join(map(str, places))}")
        return path


@dataclass(slots=True, kw_only=True)
class _Candidate:
    """A model file on its way to the engine. What is known of it once it is loaded: bytes, and their sha256."""

    path: Path
    expected: str | None
    room: Callable[[], int | None]
    make: Callable[[Path], Engine]
    size: int = 0
    sha256: str = ""

    def load(self) -> Engine:
        """Verify the file and load it, when there is memory for it. Raises `ModelError`, `NotEnoughMemory`."""
        header = store.check(self.path)
        weights = store.weights(self.path)
        self.size = weights.stat().st_size
        needed, room = memory.needed(header, self.size), self.room()
        if room is not None and needed > room:
            raise NotEnoughMemory(str(self.path), needed, room)
        self.sha256 = store.verify(self.path, self.expected).sha256 or store.digest(weights)
        return self.make(self.path)


class ModelSwap:
    """Puts another model in the place of the one at work; one at a time.

    `make` loads a verified file, `derive` tells the queue's capacity from an RTF, `room` how many bytes of memory there
    are (None: unknown).
    """

    def __init__(  # noqa: PLR0913 - the parts that it connects
        self,
        worker: WhisperThread,
        queue: JobQueue,
        models: Models,
        make: Callable[[Path], Engine],
        *,
        speech: Callable[[], NDArray[np.float32]],
        derive: Callable[[float], Capacity],
        room: Callable[[], int | None] = memory.available,
    ) -> None:
        self._worker = worker
        self._queue = queue
        self._models = models
        self._make = make
        self._speech = speech
        self._derive = derive
        self._room = room
        self._under_way: ModelHandover | None = None
        self._stopping = False
        self._reloading: asyncio.Task[None] | None = None

    def admit(self, _name: str, _headers: Mapping[str, str], payload: bytes) -> Coroutine[Any, Any, Message]:
        """Check a request; the coroutine swaps and answers. Both raise `Rejection`: 400, 409, 500 or 503."""
        name, sha256 = _asked(payload)
        path = self._models.find(name) if name is not None else self._models.configured
        if self._models.sha256 is not None and sha256 not in {None, self._models.sha256}:
            raise Rejection("400", f"WHISPER_MODEL_SHA256 allows {self._models.sha256} only")
        return self._answer(self._begin(path, sha256))

    def reload(self) -> None:
        """Load what the configured path holds now; how that ends is in the log."""
        try:
            swapping = self._begin(self._models.configured, None)
        except Rejection as refusal:
            log.warning("model not swapped: %s", refusal.detail)
            return

        async def wait() -> None:
            with contextlib.suppress(Rejection):  # it is in the log
                await swapping

        self._reloading = asyncio.create_task(wait())

    def give_up(self) -> None:
        """At shutdown: what is under way is left, and nothing else begins."""
        self._stopping = True
        if self._under_way is not None:
            self._under_way.give_up()

    def _begin(self, path: Path, sha256: str | None) -> Coroutine[Any, Any, Swapped]:
        """Take the one place for a swap. Raises `Rejection` when it is taken."""
        if self._stopping:
            raise Rejection("503", "the daemon is stopping")
        if self._under_way is not None:
            raise Rejection("409", "another swap is under way")
        # The file behind a link, once for all: the link may move on between verifying and loading.
        candidate = _Candidate(
            path=resolve_link(path), expected=self._models.sha256 or sha256, room=self._room, make=self._make
        )
        successor = ModelHandover(
            self._worker, self._queue, candidate.load, self._speech(), lambda rtf: self._derive(rtf).jobs
        )
        self._under_way = successor
        return self._swap(candidate, successor)

    async def _answer(self, swapping: Coroutine[Any, Any, Swapped]) -> Message:
        return encode_swapped(await swapping)

    async def _swap(self, candidate: _Candidate, successor: ModelHandover) -> Swapped:
        worker, begin = self._worker, time.monotonic()
        before, before_rtf, before_capacity = worker.model, worker.pace.rtf, self._queue.capacity
        log.info("swapping models", extra={"model": before, "path": str(candidate.path)})
        try:
            warm = await successor.run()
        except TranscriberError as error:
            log.log(
                logging.INFO if isinstance(error, Stopped) else logging.ERROR,
                "model not swapped: %s",
                error,
                extra={"model": before},
            )
            raise Rejection(_code(error), str(error)) from error
        finally:
            successor.give_up()  # when nobody waits any more; else it is done
            self._under_way = None
        derived = self._derive(warm.rtf)
        done = Swapped(
            model=warm.engine.model,
            sha256=candidate.sha256,
            size=candidate.size,
            rtf=warm.rtf,
            queue_capacity=derived.jobs,
            before=before,
            before_rtf=before_rtf,
            before_queue_capacity=before_capacity,
        )
        extra = {
            "model": done.model,
            "sha256": done.sha256,
            "bytes": done.size,
            "model_before": before,
            "rtf_before": round(before_rtf, 4),
            "capacity_before": before_capacity,
            "seconds": round(time.monotonic() - begin, 3),
        }
        log.info("model swapped: %s", derived, extra=extra)
        return done


def resolve_link(path: Path) -> Path:
    """The file that a link stands for, so that it can be verified and loaded as one, and results bear its own name.

    Not where that name says nothing: stores by content have files that are called like their checksums.
    """
    real = path.resolve() if path.is_symlink() else path
    return real if real.suffix == path.suffix else path


def pulled() -> Path | None:
    """Where pulled models are; None for a user without a home, as in a container."""
    try:
        return store.models_dir()
    except RuntimeError:
        return None


def _asked(payload: bytes) -> tuple[str | None, str | None]:
    """The model and the sha256 that a request names. Raises `Rejection`."""
    try:
        body = json.loads(payload or b"{}")
        unknown = set(body) - {"model", "sha256"}
        values = [body.get("model"), body.get("sha256")]
    except (ValueError, TypeError, AttributeError):
        raise Rejection("400", 'allowed: no payload, or {"model": ..., "sha256": ...} in JSON') from None
    if unknown or not all(value is None or isinstance(value, str) for value in values):
        raise Rejection("400", 'allowed: {"model": ..., "sha256": ...}, each a string and each optional')
    return values[0], values[1]


def _code(error: TranscriberError) -> str:
    """The services API's error code."""
    if isinstance(error, ModelError):
        return "400"
    return "503" if isinstance(error, NotEnoughMemory | Stopped) else "500"
