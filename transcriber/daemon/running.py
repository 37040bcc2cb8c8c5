"""What the modes of a daemon work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from transcriber.audio.sessions import Sessions
    from transcriber.broker.connection import Connection
    from transcriber.broker.publisher import Publisher
    from transcriber.broker.requests import RequestService
    from transcriber.pipeline.parts import Parts
    from transcriber.worker.queue import JobQueue
    from transcriber.worker.thread import WhisperThread


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a mode works with, once NATS is connected and the model is loaded."""

    connection: Connection
    publisher: Publisher
    queue: JobQueue
    make_parts: Callable[[Sessions], Parts]
    capacity: Callable[[], float]  # streams of uninterrupted speech that the engine can carry
    requests: RequestService
    worker: WhisperThread
