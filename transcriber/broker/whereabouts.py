"""Whether the audio stream is still the one that was read from, and where to go on if it is not.

A stream that is deleted and made again counts from 1, so its next messages have lower numbers than those already read.
A stream restored from a backup ends too early, and uses the later numbers twice. A mirror that replaces the stream has
the same messages once it has caught up. So each checkpoint remembers one message that was read, by number and time
(P-30). Records of earlier versions remember none. They are compared by the time at which they were stored.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors

from transcriber.domain.chunks import Cursor
from transcriber.protocol import incoming

if TYPE_CHECKING:
    from datetime import datetime

    from nats.js.api import RawStreamMsg, StreamInfo
    from nats.js.client import JetStreamContext

    from transcriber.broker.connection import Connection

REPLACED = f"{incoming.AUDIO_STREAM} was made again or restored; going on at message"
_STALE_SECS = 15.0  # a leader that others have deposed steps down after 10 s; until then it may answer
_SAME_SECS = 0.001  # nats-py gives times in microseconds, rounded in two ways


class Whereabouts:
    """Tells where stored audio goes on, in the stream as it is now."""

    def __init__(self, connection: Connection, jetstream: JetStreamContext, subject: str) -> None:
        self._connection = connection
        self._jetstream = jetstream
        self._subject = subject
        self._short_since: float | None = None

    async def moved(self, cursor: Cursor, recorded: datetime | None = None) -> Cursor | None:
        """Return where the audio at `cursor` is now; None when it is where it was. Raises what JetStream does.

        `recorded`: when the record with this cursor was stored, if it was.
        """
        info = await self._jetstream.stream_info(incoming.AUDIO_STREAM)
        last, mark = info.state.last_seq or 0, cursor.mark
        had = cursor.seq - 1 if mark is None else mark.seq
        if had > last:
            self._check_stale(had, last, mirror=info.config.mirror is not None)
            return Cursor(1, 0) if mark is None else await self._find(cursor, last)
        self._short_since = None
        message = await self._read(had) if had else None
        if message is None:
            return None  # nothing was read, or it is too old to tell
        if mark is None:
            return Cursor(1, 0) if _is_newer(info, message, recorded) else None
        if abs(_time(message) - mark.time) < _SAME_SECS:
            return None
        return await self._find(cursor, last)

    def _check_stale(self, had: int, last: int, *, mirror: bool) -> None:
        """Do not believe it at once that messages are gone: in a cluster, or while a mirror catches up."""
        if mirror:
            raise nats.errors.Error(f"{incoming.AUDIO_STREAM} is a mirror at message {last}, and {had} has been read")
        now = time.monotonic()
        self._short_since = self._short_since or now
        longest = min(_STALE_SECS, self._connection.options.connect_timeout / 2)
        if self._connection.clustered and now - self._short_since < longest:
            raise nats.errors.Error(f"{incoming.AUDIO_STREAM} ends at message {last}, and {had} has been read")
        self._short_since = None

    async def _find(self, cursor: Cursor, last: int) -> Cursor:
        """The first message that is not older than the mark; what follows it, if it is the mark itself."""
        mark = cursor.mark
        assert mark is not None  # noqa: S101 - moved() has seen to it
        low, high, found = 1, last + 1, None
        while low < high:
            middle = (low + high) // 2
            message = await self._read(middle, following=True)
            if message is None or _time(message) > mark.time - _SAME_SECS:
                high, found = middle, message
            else:
                low = (message.seq or middle) + 1
        if found is None or abs(_time(found) - mark.time) >= _SAME_SECS:
            return Cursor(low, 0)
        seq = found.seq or low
        return replace(cursor, seq=seq + cursor.seq - mark.seq, mark=replace(mark, seq=seq))

    async def _read(self, seq: int, *, following: bool = False) -> RawStreamMsg | None:
        """Return a message, or the subject's first one from there on; None without one."""
        try:
            if following:
                return await self._jetstream.get_msg(incoming.AUDIO_STREAM, seq, self._subject, next=True)
            return await self._jetstream.get_msg(incoming.AUDIO_STREAM, seq)
        except nats.js.errors.NotFoundError as error:
            if error.err_code == incoming.NO_MESSAGE:
                return None
            raise


def _is_newer(info: StreamInfo, message: RawStreamMsg, recorded: datetime | None) -> bool:
    """Whether a message that must be older than a record is not, because the stream was made after the record.

    The clocks of two servers differ, so the message's time alone proves nothing.
    """
    made, stored = info.created, message.time
    return None not in (recorded, made, stored) and made > recorded and stored > recorded  # type: ignore[operator]


def _time(message: RawStreamMsg) -> float:
    return message.time.timestamp() if message.time is not None else 0.0
