"""Stored audio, transcribed once more: say with a better model, to another subject."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from transcriber.audio.sessions import Output, Sessions
from transcriber.broker import wire
from transcriber.broker.durable import DurableSource, newest
from transcriber.broker.encoding import Message, encode_event, encode_final
from transcriber.broker.live import Refused
from transcriber.errors import EngineError, Rejection
from transcriber.measurements import Tallies
from transcriber.messages import GapReason, Silence, Skipped, Window
from transcriber.results import Latency, Transcript
from transcriber.worker.decoding import Read, decode
from transcriber.worker.engine import WhisperEngine
from transcriber.worker.one_thread import one_thread

if TYPE_CHECKING:
    from transcriber.broker.connection import Connection
    from transcriber.broker.durable import Arrival
    from transcriber.settings import Settings


@dataclass(frozen=True, slots=True)
class Part:
    """Which stored audio: of a stream, from a moment to a moment; None: from the first, to the last."""

    stream: str
    since: datetime | None = None
    until: datetime | None = None


class Replay:
    """Gives out what a daemon would have published, in order, its subjects beginning with `prefix`."""

    def __init__(self, connection: Connection, settings: Settings, prefix: str) -> None:
        self._connection = connection
        self._settings = settings
        self._prefix = prefix
        self._sessions = Sessions(settings.sessions, lambda: uuid4().hex, Tallies())
        self._engine: WhisperEngine | None = None
        self._call: Callable[..., asyncio.Future[Any]]

    async def messages(self, part: Part) -> AsyncIterator[Message]:
        """Decode as fast as the engine does; nothing is dropped. Raises `BrokerError`."""
        with one_thread() as self._call:
            async for message in self._messages(part):
                yield message

    async def _messages(self, part: Part) -> AsyncIterator[Message]:
        self._engine = await self._call(WhisperEngine, self._settings.whisper)
        subject = f"{wire.AUDIO}.{part.stream}"
        last = await newest(self._connection, subject, part.since)
        source = DurableSource(
            self._connection, subject, self._settings.input, begin=part.since or 1, done={}, lasting=False
        )
        if last:
            async for arrival in source.arrivals():
                if part.until is not None and source.now > part.until.timestamp():
                    break
                for output in self._taken(arrival, source.now):
                    async for message in self._told(output):
                        yield message
                if _sequence(arrival) >= last:
                    break
        for output in self._sessions.end_all():
            async for message in self._told(output):
                yield message

    def _taken(self, arrival: Arrival, now: float) -> Iterable[Output]:
        try:
            match arrival:
                case Refused(stream=stream, session=session, rejection=rejection) if stream is not None:
                    return self._sessions.reject(stream, session, rejection)
                case Refused():
                    return []
                case Skipped():
                    return self._sessions.skip(arrival, now)
            return self._sessions.receive(arrival, now)
        except Rejection as rejection:
            stored = arrival.chunk if isinstance(arrival, Skipped) else arrival
            return self._sessions.reject(stored.stream or "", stored.session, rejection)

    async def _told(self, output: Output) -> AsyncIterator[Message]:
        if isinstance(output, Silence):
            return
        if not isinstance(output, Window):
            yield self._renamed(encode_event(output, time.time_ns()))
            return
        assert self._engine is not None  # noqa: S101 - messages() loaded it
        begin = time.monotonic()
        try:
            read: Read = await self._call(decode, self._engine, output, None, lambda _work: True)
        except EngineError:
            follow = self._sessions.dropped(output, GapReason.ENGINE_ERROR)
        else:
            took = time.monotonic() - begin
            latency = Latency(0.0, took, took)
            transcript = Transcript(output.origin, output.sequence, output.start, output.end, read.recognition, latency)
            yield self._renamed(encode_final(transcript, None, self._connection.max_payload))
            follow = self._sessions.transcribed(output)
        for event in follow:
            if not isinstance(event, Window | Silence):
                yield self._renamed(encode_event(event, time.time_ns()))

    def _renamed(self, message: Message) -> Message:
        """To the other subject, under an id that no window of the first time has."""
        subject = f"{self._prefix}.{message.subject.partition('.')[2]}"
        identity = f"{self._prefix}/{message.headers['Nats-Msg-Id']}"
        return replace(message, subject=subject, headers={**message.headers, "Nats-Msg-Id": identity})


def _sequence(arrival: Arrival) -> int:
    cursor = arrival.chunk.cursor if isinstance(arrival, Skipped) else arrival.cursor
    return cursor.seq if cursor is not None else 0
