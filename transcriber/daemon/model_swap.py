"""Swaps the model without a restart, on SIGHUP or on request. If the new model is refused, the old one stays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
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
    "a name from `transcriber models list`, the name of a file that ends in .bin, "
    f"or the name of a folder that begins with {catalogue.FOLDER_PREFIX}; no paths"
)


@dataclass(frozen=True, slots=True)
class Models:
    """The models that a swap may load. `configured` is the file in the settings, `sha256` the only checksum they allow.

    A request gives a name, never a path: the operator has put the model into the configured model's folder, or pulled
    it into `directory`. With a path, any client could make the daemon open any file of its host. The answer would tell
    the client whether the file exists and how it begins.
    """

    configured: Path
    sha256: str | None = None
    directory: Path | None = None

    def find(self, name: str) -> Path:
        """Return the file of this name. Raises `Rejection` when there is none, or the name is not allowed."""
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
    """A model to swap in. Its `size` in bytes and its `sha256` are known once it is loaded."""

    path: Path
    expected: str | None
    room: Callable[[], int | None]
    make: Callable[[Path], Engine]
    size: int = 0
    sha256: str = ""

    def load(self) -> Engine:
        """Verify the file and load it if there is enough memory. Raises `ModelError`, `NotEnoughMemory`."""
        header = store.check(self.path)
        weights = store.weights(self.path)
        self.size = weights.stat().st_size
        needed, room = memory.needed(header, self.size), self.room()
        if room is not None and needed > room:
            raise NotEnoughMemory(str(self.path), needed, room)
        self.sha256 = store.verify(self.path, self.expected).sha256 or store.digest(weights)
        return self.make(self.path)


class ModelSwap:
    """Replaces the model in use; one swap at a time.

    `make` loads a verified file. `derive` computes the queue's capacity from an RTF. `room` returns the free memory in
    bytes (None: unknown).
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
        self.afterwards: Callable[[], Awaitable[None]] | None = None  # awaited after a swap, before its answer
        self._reloading: asyncio.Task[None] | None = None

    def admit(self, _name: str, _headers: Mapping[str, str], payload: bytes) -> Coroutine[Any, Any, Message]:
        """Check a request; return a coroutine that swaps and answers. Both raise `Rejection`: 400, 409, 500 or 503."""
        name, sha256 = _parse_request(payload)
        path = self._models.find(name) if name is not None else self._models.configured
        if self._models.sha256 is not None and sha256 not in {None, self._models.sha256}:
            raise Rejection("400", f"WHISPER_MODEL_SHA256 allows {self._models.sha256} only")
        return self._answer(self._begin(path, sha256))

    def reload(self) -> None:
        """Load the file that is at the configured path now. The log has the result."""
        try:
            swapping = self._begin(self._models.configured, None)
        except Rejection as refusal:
            log.warning("model not swapped: %s", refusal.detail)
            return

        async def wait() -> None:
            with contextlib.suppress(Rejection):  # it has been logged
                await swapping

        self._reloading = asyncio.create_task(wait())

    def give_up(self) -> None:
        """Abandon a swap that is under way, and refuse new ones. Called at shutdown."""
        self._stopping = True
        if self._under_way is not None:
            self._under_way.cancel()

    def _begin(self, path: Path, sha256: str | None) -> Coroutine[Any, Any, Swapped]:
        """Prepare a swap. Raises `Rejection` when another one is under way."""
        if self._stopping:
            raise Rejection("503", "the daemon is stopping")
        if self._under_way is not None:
            raise Rejection("409", "another swap is under way")
        # Resolve a link once: it may point elsewhere between verifying and loading.
        candidate = _Candidate(
            path=resolve_link(path), expected=self._models.sha256 or sha256, room=self._room, make=self._make
        )
        handover = ModelHandover(
            self._worker, self._queue, candidate.load, self._speech(), lambda rtf: self._derive(rtf).jobs
        )
        self._under_way = handover
        return self._swap_and_tell(candidate, handover)

    async def _swap_and_tell(self, candidate: _Candidate, handover: ModelHandover) -> Swapped:
        done = await self._swap(candidate, handover)
        if self.afterwards is not None:
            await self.afterwards()
        return done

    async def _answer(self, swapping: Coroutine[Any, Any, Swapped]) -> Message:
        return encode_swapped(await swapping)

    async def _swap(self, candidate: _Candidate, handover: ModelHandover) -> Swapped:
        worker, begin = self._worker, time.monotonic()
        before, before_rtf, before_capacity = worker.model, worker.speed.rtf, self._queue.capacity
        log.info("swapping models", extra={"model": before, "path": str(candidate.path)})
        try:
            warm = await handover.run()
        except TranscriberError as error:
            log.log(
                logging.INFO if isinstance(error, Stopped) else logging.ERROR,
                "model not swapped: %s",
                error,
                extra={"model": before},
            )
            raise Rejection(_code(error), str(error)) from error
        finally:
            handover.cancel()  # matters only if this task was cancelled
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
    """Resolve a link, so that the verified file is the loaded one, and results carry its real name.

    Content-addressed stores name files by checksum. There the suffix differs, and the link's name is kept.
    """
    real = path.resolve() if path.is_symlink() else path
    return real if real.suffix == path.suffix else path


def pulled_models() -> Path | None:
    """Return the folder of pulled models; None for a user without a home directory, as in a container."""
    try:
        return store.models_dir()
    except RuntimeError:
        return None


def _parse_request(payload: bytes) -> tuple[str | None, str | None]:
    """Return the model and the sha256 in a request. Raises `Rejection`."""
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
    """Return the services API's code for an error."""
    if isinstance(error, ModelError):
        return "400"
    return "503" if isinstance(error, NotEnoughMemory | Stopped) else "500"
