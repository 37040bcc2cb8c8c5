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

import nats.js.errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from transcriber.broker.patience import AWAY, Backoff, permitted, persist
from transcriber.broker.whereabouts import REPLACED, Whereabouts
from transcriber.domain.chunks import Arrival, Chunk, Cursor, DroppedChunk, MalformedMessage, Mark, Moved
from transcriber.domain.errors import Rejection
from transcriber.domain.events import ConsumerLag
from transcriber.protocol import incoming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from nats.aio.msg import Msg
    from nats.js.api import RawStreamMsg
    from nats.js.client import JetStreamContext

    from transcriber.broker.connection import Connection

log = logging.getLogger(__name__)

_BATCH = 32  # messages in one pull: 3 s of 100 ms chunks, so a round trip costs little in comparison
_WAIT_SECS = 1.0  # how long one pull waits for a message, and how soon a lost consumer is noticed
_INACTIVE_SECS = 60.0  # after which the server deletes a temporary consumer


class DurableSource:
    """Yields the messages stored for `subject`, from `begin` on and in order, through `arrivals`.

    `begin` is a sequence number or a time. `done` holds, by stream, where the transcripts end; messages before that are
    left out. Messages older than `max_lag` seconds are yielded as `DroppedChunk`. With `lasting` the consumer is named
    after the subject and stays when we are gone, so that autoscalers can read its lag. `also`: more subjects to read.
    `allowed` says whether we may ask for messages now, in a fleet: they may be somebody else's.
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
        also: Sequence[str] = (),
        allowed: Callable[[], bool] = lambda: True,
    ) -> None:
        self._connection = connection
        self._jetstream: JetStreamContext = connection.client.jetstream()
        self._subject = subject
        self._options = options
        self._since = begin if isinstance(begin, datetime) else None
        self._next = 1 if isinstance(begin, datetime) else max(1, begin)
        self._lasting = lasting
        self._also = list(also)
        self._allowed = allowed
        self._done = dict(done)
        self._max_lag = max_lag
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._whole = False  # whether no message of the subscription was lost so far
        self._expected = 1
        self._reconnects = connection.reconnects
        self._ending = False
        self._whereabouts = Whereabouts(connection, self._jetstream, subject)
        marks = [cursor.mark for cursor in done.values() if cursor.mark is not None]
        self._mark = max(marks, key=lambda mark: mark.time, default=None)  # the newest message had, by anybody
        self._moved: Moved | None = None  # to be told
        self._backoff = Backoff("stored audio")
        self._held = False  # our own clock, since JetStream does not answer
        self._last: tuple[float, float] | None = None  # the newest message's time, and when we had it
        self.lag = ConsumerLag(0, 0.0)

    @property
    def now(self) -> float:
        """Time by the messages, in seconds. Once all are read, it advances with our own clock."""
        if self._last is None:
            return time.time()
        stored, had = self._last
        return stored + (0.0 if self.lag.chunks or self._held else time.monotonic() - had)

    def end(self) -> None:
        """Make `arrivals` end."""
        self._ending = True

    async def close(self) -> None:
        """Stop asking for messages, for good. Call this when nobody takes `arrivals` any more."""
        self._ending = True
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            await subscription.unsubscribe()

    async def arrivals(self) -> AsyncIterator[Arrival]:
        """Yield stored and future messages, until `end`. Messages that are not asked for stay in the stream."""
        while not self._ending:
            messages = await self._fetch()
            if self._moved is not None:
                moved, self._moved = self._moved, None
                yield moved
            for message in messages:
                if self._ending:
                    return
                if (arrival := self._take(message)) is not None:
                    yield arrival
                await asyncio.sleep(0)

    async def _fetch(self) -> list[Msg]:
        """Return the next messages, none when none came in time or JetStream did not answer."""
        await self._connection.connected.wait()
        await permitted(self._allowed)
        try:
            if not self._whole or self._reconnects != self._connection.reconnects:
                await self._begin()
            messages = await self._pull()
        except AWAY as error:
            self._hold()
            self._whole = False
            await self._backoff.failed(error)
            return []
        self._backoff.worked()
        return messages

    async def _pull(self) -> list[Msg]:
        """Ask the consumer for messages; when none comes, ask whether there is none. Raises what JetStream does."""
        assert self._subscription is not None  # noqa: S101 - _begin() set it
        try:
            return await self._subscription.fetch(_BATCH, _WAIT_SECS)
        except TimeoutError:
            info = await self._subscription.consumer_info()
            given = info.delivered.consumer_seq if info.delivered is not None else 0
            if given >= self._expected:  # the last ones were lost between two servers, and nothing follows them
                self._whole = False
            elif not info.num_pending:
                self.lag = ConsumerLag(0, 0.0)
                self._go_on()
            return []

    def _hold(self) -> None:
        """Stop our own clock: what is stored meanwhile is not late, and ends no session."""
        if self._last is not None:
            self._last = (self.now, time.monotonic())
        self._held = True

    def _go_on(self) -> None:
        """Let our own clock go on from where it stands."""
        if self._held and self._last is not None:
            self._last = (self._last[0], time.monotonic())
        self._held = False

    async def _begin(self) -> None:
        """Create the consumer again, starting after the last message that we got."""
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            await subscription.unsubscribe()
        self._reconnects = self._connection.reconnects
        await self._look_around()
        name = incoming.consumer_of(self._subject) if self._lasting else f"transcriber-{uuid4().hex}"
        with contextlib.suppress(nats.js.errors.NotFoundError):
            await self._jetstream.delete_consumer(incoming.AUDIO_STREAM, name)
        await self._jetstream.add_consumer(incoming.AUDIO_STREAM, self._consumer(name))
        self._subscription = await self._jetstream.pull_subscribe_bind(name, incoming.AUDIO_STREAM)
        self._whole, self._expected = True, 1

    async def _look_around(self) -> None:
        """Go on elsewhere if the stream is another than the one we have read from."""
        if self._since is not None and self._mark is None:
            return
        now = await self._whereabouts.moved(Cursor(self._next, 0, self._mark))
        if now is None:
            return
        self._moved = Moved(f"{REPLACED} {now.seq} instead of {self._next}", now)
        log.warning(self._moved.detail)
        self._next, self._mark, self._done = now.seq, now.mark, {}

    def _consumer(self, name: str) -> ConsumerConfig:
        start: dict[str, Any] = {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": self._next}
        if self._since is not None and self._next == 1:
            start = {"deliver_policy": DeliverPolicy.BY_START_TIME, "opt_start_time": self._since}
        return ConsumerConfig(
            name=name,
            durable_name=name if self._lasting else None,
            inactive_threshold=None if self._lasting else _INACTIVE_SECS,
            filter_subject=None if self._also else self._subject,
            filter_subjects=[self._subject, *self._also] if self._also else None,
            ack_policy=AckPolicy.NONE,  # the transcripts record what is done
            **start,
        )

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
        self._mark = Mark(meta.sequence.stream, stored)
        self._last, self._held = (stored, arrived := time.monotonic()), False
        self.lag = ConsumerLag(meta.num_pending, max(0.0, time.time() - stored))
        return self._parse(message, self._mark, arrived)

    def _parse(self, message: Msg, mark: Mark, arrived: float) -> Arrival | None:
        subject, headers, payload, seq = message.subject, message.headers, message.data, mark.seq
        stream = incoming.name_in(subject)
        start = self._done.get(stream, Cursor(1, 0))
        if seq < start.seq:
            return None
        at = Cursor(seq, start.frame if seq == start.seq else 0, mark)
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
    """The sequence of the last message of a subject, 0 without one stored `since` then. Raises `BrokerError`."""
    jetstream = connection.client.jetstream()

    async def read() -> RawStreamMsg | None:
        try:
            return await jetstream.get_last_msg(incoming.AUDIO_STREAM, subject)
        except nats.js.errors.NotFoundError as error:
            if error.err_code == incoming.NO_MESSAGE:
                return None
            raise

    message = await persist(connection, "stored audio", read)
    early = since is not None and message is not None and message.time is not None and message.time < since
    return 0 if early or message is None else message.seq or 0
