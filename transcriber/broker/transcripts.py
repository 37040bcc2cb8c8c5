"""Reads where each stream's transcript ends, and stores records exactly once, protected by a fence."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import nats.js.errors

from transcriber.broker.patience import AWAY, Backoff, persist
from transcriber.broker.whereabouts import REPLACED, Whereabouts
from transcriber.domain.errors import BrokerError, Fenced
from transcriber.protocol import incoming
from transcriber.protocol.checkpoints import decode_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.js.api import RawStreamMsg
    from nats.js.client import JetStreamContext

    from transcriber.broker.connection import Connection
    from transcriber.domain.timeline import Checkpoint
    from transcriber.protocol.outgoing import Message

log = logging.getLogger(__name__)

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_EXPECTED_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"
FENCE_BYTES = 256  # the most that these two headers add: their names, a sequence and a stream's subject
_WRONG_LAST = {10071, 10164}  # JSStreamWrongLastSequenceErr: another writer, or we ourselves, has written before
_ANSWER_SECS = 2.0  # a working server answers within milliseconds
_STALE_SECS = 30.0  # a leader that others have deposed steps down after 10 s


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where work resumes: each stream's checkpoint, and the first unsettled message of the audio stream."""

    checkpoints: Mapping[str, Checkpoint]
    begin: int
    moved: Mapping[str, str]  # streams whose stored audio is another than the one that was read, in words


class Transcripts:
    """Reads and writes the transcript stream. A stream has one writer at a time; a second one is `Fenced`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._jetstream: JetStreamContext = connection.client.jetstream(timeout=_ANSWER_SECS)
        self._last: dict[str, int] = {}
        self._made: datetime | None = None  # the stream, when we last looked for its end

    async def resume_point(self, subject: str) -> ResumePoint:
        """Read where the transcripts of all streams of `subject` end. Raises `BrokerError`."""
        whereabouts = Whereabouts(self._connection, self._jetstream, subject)
        try:
            return await persist(self._connection, "the transcripts", lambda: self._resume_point(subject, whereabouts))
        except ValueError as error:
            raise BrokerError(self._connection.options.address, str(error)) from error

    async def _resume_point(self, subject: str, whereabouts: Whereabouts) -> ResumePoint:
        asked = subject.partition(".")[2]
        audio = await self._jetstream.stream_info(incoming.AUDIO_STREAM, subjects_filter=subject)
        stored = await self._jetstream.stream_info(incoming.TRANSCRIPT_STREAM, subjects_filter=f"transcript.{asked}.*")
        self._made = stored.created
        with_audio = {name.split(".")[1] for name in audio.state.subjects or ()}
        with_records = {name.split(".")[1] for name in stored.state.subjects or ()}
        checkpoints: dict[str, Checkpoint] = {}
        moved: dict[str, str] = {}
        begin = (audio.state.last_seq or 0) + 1
        for stream in with_audio | with_records:
            last = await self._read_last(stream)
            self._last[stream] = last.seq or 0 if last is not None else 0
            checkpoint, recorded = (None, None) if last is None else (decode_checkpoint(last.data or b""), last.time)
            if checkpoint is not None:
                if (now := await whereabouts.moved(checkpoint.cursor, recorded)) is not None:
                    moved[stream] = f"{REPLACED} {now.seq} instead of {checkpoint.cursor.seq}"
                    checkpoint = replace(checkpoint, cursor=now)
                checkpoints[stream] = checkpoint
            if stream in with_audio:
                begin = min(begin, await self._begin(stream, checkpoint))
        for stream, detail in moved.items():
            log.warning(detail, extra={"stream": stream})
        return ResumePoint(checkpoints, begin, moved)

    async def _begin(self, stream: str, checkpoint: Checkpoint | None) -> int:
        """Return a stream's first unsettled message, or `sys.maxsize` when all are settled."""
        newest = await self._jetstream.get_last_msg(incoming.AUDIO_STREAM, f"{incoming.AUDIO}.{stream}")
        first = checkpoint.cursor.seq if checkpoint is not None else 1
        return first if first <= (newest.seq or 0) else sys.maxsize

    async def store(self, stream: str, message: Message) -> None:
        """Store the stream's next record, retrying for ever. Raises `Fenced` when another daemon has written."""
        headers = {
            **message.headers,
            _EXPECTED: str(self._last.get(stream, 0)),
            _EXPECTED_SUBJECT: f"transcript.{stream}.*",
        }
        backoff = Backoff("a record")
        while True:
            await self._connection.connected.wait()
            try:
                stored = await self._publish(stream, message, headers, backoff.failing)
                break
            except AWAY as error:
                await backoff.failed(error)
        backoff.worked()
        self._last[stream] = stored

    async def _publish(self, stream: str, message: Message, headers: Mapping[str, str], failing: float) -> int:
        """Try once to store a record; returns its sequence. Raises `Fenced`, and what is worth another attempt.

        `failing`: for how many seconds earlier attempts have failed.
        """
        try:
            stored = await self._jetstream.publish(
                message.subject, message.payload, stream=incoming.TRANSCRIPT_STREAM, headers=dict(headers)
            )
        except nats.js.errors.APIError as error:
            if error.err_code in _WRONG_LAST:
                if (ours := await self._was_ours(stream, message)) is not None:
                    return ours
                await self._check_same(stream, failing)
            raise  # an earlier attempt is on its way through the cluster, or an old leader has answered
        return max(self._last.get(stream, 0), stored.seq)  # lower: stored before, by an earlier run

    async def _was_ours(self, stream: str, message: Message) -> int | None:
        """After a refusal: our own record is there when only its acknowledgement was lost. None: nobody has written.

        Raises `Fenced` when somebody else has.
        """
        last, expected = await self._read_last(stream), self._last.get(stream, 0)
        if last is None or (last.seq or 0) <= expected:
            return None
        wanted = message.headers["Nats-Msg-Id"]
        if (last.headers or {}).get("Nats-Msg-Id") != wanted or last.data != message.payload:
            reason = f"record {expected} should be the last; record {last.seq} is"
            raise Fenced(f"transcript.{stream}.*", reason)
        return last.seq or 0

    async def _check_same(self, stream: str, failing: float) -> None:
        """Raise `Fenced` when this is not the transcript stream that our records are in."""
        info = await self._jetstream.stream_info(incoming.TRANSCRIPT_STREAM)
        expected = self._last.get(stream, 0)
        if info.created != self._made or (info.state.last_seq < expected and failing > _STALE_SECS):
            reason = (
                f"{incoming.TRANSCRIPT_STREAM} was made again or restored, and ends before record {expected}. Start "
                "again: audio is transcribed from where this stream ends"
            )
            raise Fenced(f"transcript.{stream}.*", reason)

    async def _read_last(self, stream: str) -> RawStreamMsg | None:
        try:
            return await self._jetstream.get_last_msg(incoming.TRANSCRIPT_STREAM, f"transcript.{stream}.*")
        except nats.js.errors.NotFoundError as error:
            if error.err_code == incoming.NO_MESSAGE:
                return None
            raise
