"""Transcribes stored audio again, for example with a better model, and publishes to another subject."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from transcriber.audio.sessions import SessionOutput, Sessions
from transcriber.broker.jetstream import DurableSource, newest
from transcriber.domain.chunks import DroppedChunk, Moved
from transcriber.domain.errors import EngineError
from transcriber.domain.events import Speech
from transcriber.domain.measurements import Tallies
from transcriber.domain.timeline import Gap, GapReason, Window
from transcriber.pipeline.receiver import Receiver
from transcriber.pipeline.verdict import Verdict, judge
from transcriber.protocol import incoming
from transcriber.protocol.outgoing import Message, encode_final, encode_outputs
from transcriber.worker.decoding import DecodedWindow, decode
from transcriber.worker.engines.loading import load_engine
from transcriber.worker.jobs import Outcome
from transcriber.worker.one_thread import one_thread

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transcriber.audio.session import SessionOptions
    from transcriber.broker.connection import Connection
    from transcriber.domain.chunks import Arrival
    from transcriber.protocol.incoming import InputOptions
    from transcriber.worker.engine import Engine, WhisperOptions


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a stream's stored audio. None stands for its first message, or its last one."""

    stream: str
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """How stored audio is read, cut and decoded. Results go to subjects that begin with `prefix`."""

    sessions: SessionOptions
    input: InputOptions
    whisper: WhisperOptions
    prefix: str


class Replay:
    """Yields in order what a daemon in durable mode would have published, under other subjects and ids."""

    def __init__(self, connection: Connection, options: ReplayOptions) -> None:
        self._connection = connection
        self._options = options
        tallies = Tallies()
        self._sessions = Sessions(options.sessions, lambda: uuid4().hex, tallies)
        self._outputs: list[SessionOutput] = []
        self._receiver = Receiver(self._sessions, tallies, self._outputs.extend, stored=True)
        self._engine: Engine | None = None
        self._call: Callable[..., asyncio.Future[Any]]

    async def messages(self, part: Part) -> AsyncIterator[Message]:
        """Yield the part's messages as fast as the engine can decode; nothing is dropped. Raises `BrokerError`."""
        with one_thread() as self._call:
            self._engine = await self._call(load_engine, self._options.whisper)
            async for message in self._messages(part):
                yield self._renamed(message)

    async def _messages(self, part: Part) -> AsyncIterator[Message]:
        subject = f"{incoming.AUDIO}.{part.stream}"
        last = await newest(self._connection, subject, part.since)
        source = DurableSource(
            self._connection, subject, self._options.input, begin=part.since or 1, done={}, lasting=False
        )
        if last:
            async for arrival in source.arrivals():
                if part.until is not None and source.now > part.until.timestamp():
                    break
                self._receiver.receive(arrival, source.now)
                async for message in self._encode_outputs():
                    yield message
                if _sequence(arrival) >= last:
                    break
        self._receiver.end_all()
        async for message in self._encode_outputs():
            yield message

    async def _encode_outputs(self) -> AsyncIterator[Message]:
        """Yield the messages for all outputs so far, in order; windows are decoded first."""
        while self._outputs:
            output = self._outputs.pop(0)
            messages = await self._decoded(output) if isinstance(output, Window) else _events([output])
            for message in () if isinstance(output, Speech) else messages:
                yield message

    async def _decoded(self, window: Window) -> list[Message]:
        verdict = judge(await self._outcome(window), now=time.monotonic())
        return self._settle(verdict)

    async def _outcome(self, window: Window) -> Outcome:
        """Decode one window, with all the passes it needs: there is no deadline."""
        begin = time.monotonic()
        try:
            decoded: DecodedWindow = await self._call(decode, self._engine, window)
        except EngineError as error:
            return Outcome(
                window=window,
                recognition=None,
                reason=GapReason.ENGINE_ERROR,
                detail=str(error),
                enqueued=begin,
                queued=0.0,
                processing=time.monotonic() - begin,
            )
        took = time.monotonic() - begin
        return Outcome(
            window=window,
            recognition=decoded.recognition,
            reason=None,
            detail="",
            enqueued=begin,
            queued=0.0,
            processing=took,
            passes=decoded.passes,
        )

    def _settle(self, verdict: Verdict) -> list[Message]:
        if isinstance(verdict.result, Gap):
            return _events(self._sessions.dropped(verdict.window, verdict.result.reason))
        final = encode_final(verdict.result, None, self._connection.max_payload)
        return [*_events(verdict.suppressed), final, *_events(self._sessions.transcribed(verdict.window))]

    def _renamed(self, message: Message) -> Message:
        """Change the subject, and make the id differ from that of the first transcript."""
        prefix = self._options.prefix
        subject = f"{prefix}.{message.subject.partition('.')[2]}"
        identity = f"{prefix}/{message.headers['Nats-Msg-Id']}"
        return replace(message, subject=subject, headers={**message.headers, "Nats-Msg-Id": identity})


def _events(outputs: Iterable[Any]) -> list[Message]:
    return encode_outputs(outputs, time.time_ns())


def _sequence(arrival: Arrival) -> int:
    if isinstance(arrival, Moved):
        return 0
    cursor = arrival.chunk.cursor if isinstance(arrival, DroppedChunk) else arrival.cursor
    return cursor.seq if cursor is not None else 0
