"""Reads where each stream's transcript ends, and stores records exactly once, protected by a fence."""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors

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
_RETRY_SECS = 0.5
_AWAY = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where work resumes: each stream's checkpoint, and the first unsettled message of the audio stream."""

    checkpoints: Mapping[str, Checkpoint]
    begin: int


class Transcripts:
    """Reads and writes the transcript stream. A stream has one writer at a time; a second one is `Fenced`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._jetstream: JetStreamContext = connection.client.jetstream(timeout=_ANSWER_SECS)
        self._last: dict[str, int] = {}

    async def resume_point(self, subject: str) -> ResumePoint:
        """Read where the transcripts of all streams of `subject` end. Raises `BrokerError`."""
        try:
            return await self._resume_point(subject)
        except nats.js.errors.NotFoundError as error:
            made = f"{incoming.AUDIO_STREAM} and {incoming.TRANSCRIPT_STREAM}"
            reason = f"{error.description}: `transcriber setup` makes {made}"
            raise BrokerError(self._connection.options.address, reason) from error
        except (*_AWAY, ValueError) as error:
            raise BrokerError(self._connection.options.address, str(error) or type(error).__name__) from error

    async def _resume_point(self, subject: str) -> ResumePoint:
        names = subject.partition(".")[2]
        audio = await self._jetstream.stream_info(incoming.AUDIO_STREAM, subjects_filter=subject)
        stored = await self._jetstream.stream_info(incoming.TRANSCRIPT_STREAM, subjects_filter=f"transcript.{names}.*")
        with_audio = {name.split(".")[1] for name in audio.state.subjects or ()}
        with_records = {name.split(".")[1] for name in stored.state.subjects or ()}
        checkpoints: dict[str, Checkpoint] = {}
        begin = (audio.state.last_seq or 0) + 1
        for stream in with_audio | with_records:
            last = await self._read_last(stream)
            self._last[stream] = last.seq or 0 if last is not None else 0
            checkpoint = None if last is None else decode_checkpoint(last.data or b"")
            if checkpoint is not None:
                checkpoints[stream] = checkpoint
            if stream in with_audio:
                begin = min(begin, await self._begin(stream, checkpoint))
        return ResumePoint(checkpoints, begin)

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
        while True:
            await self._connection.connected.wait()
            try:
                stored = await self._jetstream.publish(
                    message.subject, message.payload, stream=incoming.TRANSCRIPT_STREAM, headers=dict(headers)
                )
            except nats.js.errors.APIError as error:
                if error.err_code in _WRONG_LAST:
                    await self._was_ours(stream, message)
                    return
                log.warning(
                    "%s takes no record: %s", incoming.TRANSCRIPT_STREAM, error.description, extra={"limited": True}
                )
            except _AWAY as error:
                log.warning("a record will be stored again: %s", str(error) or type(error).__name__)
            else:
                self._last[stream] = max(self._last.get(stream, 0), stored.seq)  # lower if an earlier run has stored it
                return
            await asyncio.sleep(_RETRY_SECS)

    async def _was_ours(self, stream: str, message: Message) -> None:
        """Check after a refusal that our record was stored, and only the answer was lost. Raises `Fenced`."""
        while True:
            await self._connection.connected.wait()
            try:
                last = await self._read_last(stream)
                break
            except _AWAY as error:
                log.warning("the last record will be read again: %s", str(error) or type(error).__name__)
                await asyncio.sleep(_RETRY_SECS)
        wanted = message.headers["Nats-Msg-Id"]
        if last is None or (last.headers or {}).get("Nats-Msg-Id") != wanted or last.data != message.payload:
            found = f"record {last.seq}" if last is not None else "none"
            raise Fenced(f"transcript.{stream}.*", f"record {self._last.get(stream, 0)} should be the last; {found} is")
        self._last[stream] = last.seq or 0

    async def _read_last(self, stream: str) -> RawStreamMsg | None:
        try:
            return await self._jetstream.get_last_msg(incoming.TRANSCRIPT_STREAM, f"transcript.{stream}.*")
        except nats.js.errors.NotFoundError as error:
            if error.err_code == incoming.NO_MESSAGE:
                return None
            raise
