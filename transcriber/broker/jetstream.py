"""Reads audio from JetStream, in order, from where the transcripts end, and no faster than it is processed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import nats.errors
import nats.js.errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from transcriber.broker.lease import NO_JETSTREAM
from transcriber.broker.live import MalformedMessage
from transcriber.domain.chunks import Chunk, Cursor, DroppedChunk
from transcriber.domain.errors import BrokerError, Rejection
from transcriber.domain.events import Lag
from transcriber.protocol import incoming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from nats.aio.msg import Msg
    from nats.js.client import JetStreamContext

    from transcriber.broker.connection import Connection

log = logging.getLogger(__name__)

_BATCH = 32  # messages in one pull: 3 s of 100 ms chunks, so a round trip costs little in comparison
_WAIT_SECS = 1.0  # how long one pull waits for a message, and how soon a lost consumer is noticed
_RETRY_SECS = 0.2
_INACTIVE_SECS = 60.0  # after which the server deletes a temporary consumer
_OURS = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)

Arrival = Chunk | DroppedChunk | MalformedMessage


class DurableSource:
    """Yields the messages stored for `subject`, from `begin` on and in order, through `arrivals`.

    `begin` is a sequence number or a time. `done` holds, by stream, where the transcripts end; messages before that are
    left out. Messages older than `max_lag` seconds are yielded as `DroppedChunk`. With `lasting` the consumer is named
    after the subject and stays when we are gone, so that autoscalers can read its lag.
    """

    def __init__(  # noqa: PLR0913 - what to read, from where, and how to parse it
        self,
        connection: Connection,
        subject: str,
        options: incoming.InputOptions,
        *,
        begin: int | datetime,
        done: Mapping[str, Cursor],
        max_lag: float | None = None,
        lasting: bool = True,
    ) -> None:
        self._connection = connection
        self._jetstream: JetStreamContext = connection.client.jetstream()
        self._subject = subject
        self._options = options
        self._since = begin if isinstance(begin, datetime) else None
        self._next = 1 if isinstance(begin, datetime) else max(1, begin)
        self._lasting = lasting
        self._done = dict(done)
        self._max_lag = max_lag
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._whole = False  # whether no message of the subscription was lost so far
        self._expected = 1
        self._reconnects = connection.reconnects
        self._ending = False
        self._last: tuple[float, float] | None = None  # the newest message's time, and when we got it
        self.lag = Lag(0, 0.0)

    @property
    def now(self) -> float:
        """Time by the messages, in seconds. Once all are read, it advances with our own clock."""
        if self._last is None:
            return time.time()
        stored, had = self._last
        return stored + (0.0 if self.lag.chunks else time.monotonic() - had)

    def end(self) -> None:
        """Make `arrivals` end."""
        self._ending = True

    async def arrivals(self) -> AsyncIterator[Arrival]:
        """Yield stored and future messages, until `end`. Messages that are not asked for stay in the stream."""
        while not self._ending:
            for message in await self._fetch():
                if self._ending:
                    return
                if (arrival := self._take(message)) is not None:
                    yield arrival
                await asyncio.sleep(0)

    async def _fetch(self) -> list[Msg]:
        """Return the next messages, or none after a timeout. Raises `BrokerError` when there is no audio stream."""
        await self._connection.connected.wait()
        try:
            if not self._whole or self._reconnects != self._connection.reconnects:
                await self._begin()
            assert self._subscription is not None  # noqa: S101 - _begin() set it
            return await self._subscription.fetch(_BATCH, _WAIT_SECS)
        except nats.js.errors.NotFoundError as error:
            raise BrokerError(
                self._connection.options.address,
                f"there is no stream {incoming.AUDIO_STREAM}: {error.description}; `transcriber setup` makes it",
            ) from error
        except TimeoutError:
            self.lag = Lag(0, 0.0)
            await self._check()
        except _OURS as error:
            log.warning("JetStream: %s", str(error) or type(error).__name__, extra={"limited": True})
            self._whole = False
            await asyncio.sleep(_RETRY_SECS)
        return []

    async def _check(self) -> None:
        """Begin again if the server has lost the consumer, as after a restart."""
        assert self._subscription is not None  # noqa: S101 - called after a fetch
        try:
            await self._subscription.consumer_info()
        except _OURS:
            self._whole = False

    async def _begin(self) -> None:
        """Create the consumer again, starting after the last message that we got."""
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            await subscription.unsubscribe()
        self._reconnects = self._connection.reconnects
        name = incoming.consumer_of(self._subject) if self._lasting else f"transcriber-{uuid4().hex}"
        with contextlib.suppress(nats.js.errors.NotFoundError):
            await self._jetstream.delete_consumer(incoming.AUDIO_STREAM, name)
        start: dict[str, Any] = {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": self._next}
        if self._since is not None and self._next == 1:
            start = {"deliver_policy": DeliverPolicy.BY_START_TIME, "opt_start_time": self._since}
        config = ConsumerConfig(
            name=name,
            durable_name=name if self._lasting else None,
            inactive_threshold=None if self._lasting else _INACTIVE_SECS,
            filter_subject=self._subject,
            ack_policy=AckPolicy.NONE,  # the transcripts record what is done
            **start,
        )
        await self._jetstream.add_consumer(incoming.AUDIO_STREAM, config)
        self._subscription = await self._jetstream.pull_subscribe_bind(name, incoming.AUDIO_STREAM)
        self._whole, self._expected = True, 1

    def _take(self, message: Msg) -> Arrival | None:
        """Turn a message into an arrival. None when it is transcribed already, or one before it is missing."""
        meta = message.metadata
        if meta.sequence.consumer != self._expected:  # a message was lost on its way: begin again after the last one
            self._whole = False
        if not self._whole or meta.sequence.stream < self._next:
            return None
        self._expected += 1
        self._next = meta.sequence.stream + 1
        stored = meta.timestamp.timestamp()
        self._last = (stored, arrived := time.monotonic())
        self.lag = Lag(meta.num_pending, max(0.0, time.time() - stored))
        return self._parse(message, meta.sequence.stream, stored, arrived)

    def _parse(self, message: Msg, seq: int, stored: float, arrived: float) -> Arrival | None:
        subject, headers, payload = message.subject, message.headers, message.data
        stream = subject.partition(".")[2]
        start = self._done.get(stream, Cursor(1, 0))
        if seq < start.seq:
            return None
        at = Cursor(seq, start.frame if seq == start.seq else 0, stored)
        try:
            chunk = incoming.parse(subject, headers, payload, self._options, arrived)
            if self._max_lag is None or self.lag.seconds <= self._max_lag:
                return trim_to(chunk, at)
            skipped = incoming.dropped_chunk(chunk)
            return DroppedChunk(trim_to(skipped.chunk, at), max(0, skipped.frames - at.frame))
        except Rejection as rejection:
            known = stream if incoming.is_stream(stream) else None
            return MalformedMessage(known, incoming.session_of(headers), rejection, at)


def trim_to(chunk: Chunk, at: Cursor) -> Chunk:
    """Return the chunk without the frames before `at`."""
    offset = None if chunk.offset is None else chunk.offset + at.frame
    return replace(chunk, pcm=chunk.pcm[at.frame * chunk.format.frame_bytes :], offset=offset, cursor=at)


async def newest(connection: Connection, subject: str, since: datetime | None) -> int:
    """Return the sequence of a subject's last message; 0 if none is stored `since` then. Raises `BrokerError`."""
    try:
        message = await connection.client.jetstream().get_last_msg(incoming.AUDIO_STREAM, subject)
    except nats.js.errors.NotFoundError as error:
        if error.err_code == incoming.NO_MESSAGE:
            return 0
        reason = f"there is no stream {incoming.AUDIO_STREAM}; `transcriber setup` makes it"
        raise BrokerError(connection.options.address, reason) from error
    except nats.js.errors.ServiceUnavailableError as error:
        raise BrokerError(connection.options.address, NO_JETSTREAM) from error
    early = since is not None and message.time is not None and message.time < since
    return 0 if early else message.seq or 0
