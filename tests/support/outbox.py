"""A pipeline's parts without a server: real sessions and a queue, stand-ins for publisher and telemetry."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

from transcriber.audio.session import SessionOptions
from transcriber.audio.sessions import Sessions
from transcriber.domain.measurements import Tallies
from transcriber.pipeline.listeners import Counter, Listeners, Logger
from transcriber.pipeline.parts import Parts
from transcriber.protocol.outgoing import Message
from transcriber.worker.queue import JobQueue

PLENTY = 10**6  # bytes


class Outbox:
    """Stands in for the publisher: publishes at once, and in order."""

    connected = True

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.waiting: deque[Callable[[], Iterable[Message]]] = deque()
        self.publishing = True

    def put(self, entry: Callable[[], Iterable[Message]], *, essential: bool = True) -> None:
        assert essential in {True, False}
        self.waiting.append(entry)
        if self.publishing:
            self.publish()

    def publish(self) -> None:
        """Publish what waits. What an entry puts meanwhile comes after the rest."""
        self.publishing = False
        while self.waiting:
            self.messages += self.waiting.popleft()()
        self.publishing = True

    def put_ready(self, messages: list[Message], *, essential: bool = True) -> None:
        self.put(lambda: messages, essential=essential)


def parts(outbox: Any) -> Parts:
    tallies, span = Tallies(), SimpleNamespace(ids={}, traceparent=None, end=Mock())
    return Parts(
        sessions=Sessions(SessionOptions(), lambda: "new", tallies),
        queue=JobQueue(10),
        publisher=outbox,
        observer=SimpleNamespace(start=lambda _: span, record=Mock()),
        listeners=Listeners(Counter(tallies), Logger()),
        tallies=tallies,
        max_latency=20.0,
        max_payload=lambda: PLENTY,
        speed=Mock(),
    )
