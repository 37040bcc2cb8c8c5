"""Reads where each stream's transcript ends, and stores records exactly once, protected by a fence."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import nats.js.errors

from transcriber.broker.patience import AWAY, Backoff, permitted, persist
from transcriber.broker.whereabouts import REPLACED, Whereabouts
from transcriber.domain.errors import BrokerError, Fenced
from transcriber.protocol import incoming
from transcriber.protocol.checkpoints import decode_checkpoint
from transcriber.protocol.partitions import is_for_group, partition_of, subject_of_partition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from nats.js.api import RawStreamMsg, StreamInfo
    from nats.js.client import JetStreamContext

    from transcriber.broker.connection import Connection
    from transcriber.domain.timeline import Checkpoint
    from transcriber.protocol.outgoing import Message
    from transcriber.protocol.partitions import FleetOptions

    T = TypeVar("T")

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
    unsettled: frozenset[str]  # streams with audio after their checkpoint, or with a session that is not over
    old: tuple[str, ...]  # subjects of audio that was stored before there were partitions


class Transcripts:
    """Reads and writes the transcript stream. A stream has one writer at a time; a second one is `Fenced`.

    `allowed` says whether we may write now, in a fleet. While we may not, records wait.
    """

    def __init__(self, connection: Connection, allowed: Callable[[], bool] = lambda: True) -> None:
        self._connection = connection
        self._allowed = allowed
        self._jetstream: JetStreamContext = connection.client.jetstream(timeout=_ANSWER_SECS)
        self._last: dict[str, int] = {}
        self._made: datetime | None = None  # the stream, when we last looked for its end

    async def resume_point(self, subject: str) -> ResumePoint:
        """Read where the transcripts of all streams of `subject` end. Raises `BrokerError`."""

        async def read() -> ResumePoint:
            audio = await self._stored_audio(subject)
            if audio.config.subject_transform is not None:
                reason = f"the stream {incoming.AUDIO_STREAM} belongs to a fleet: set FLEET"
                raise BrokerError(self._connection.options.address, reason)
            asked = subject.partition(".")[2]
            streams = {incoming.name_in(name): [name] for name in audio.state.subjects or ()}
            streams |= {name: [] for name in await self._with_records(asked) - streams.keys()}
            return await self._collect(streams, (audio.state.last_seq or 0) + 1, self._whereabouts(subject))

        return await self._persist(read)

    async def resume_points(self, fleet: FleetOptions, partitions: Collection[int]) -> dict[int, ResumePoint]:
        """Read where the transcripts of these partitions' streams end. Raises `BrokerError`."""

        async def read() -> dict[int, ResumePoint]:
            audio = await self._stored_audio(">")
            if (mapped := audio.config.subject_transform) is None or mapped.dest != fleet.mapped:
                found = "none" if mapped is None else mapped.dest
                reason = f"the stream {incoming.AUDIO_STREAM} has other partitions than FLEET_PARTITIONS: {found}"
                raise BrokerError(self._connection.options.address, reason)
            streams: dict[int, dict[str, list[str]]] = {p: {} for p in partitions}
            for name in await self._with_records("*"):
                streams.get(partition_of(name, fleet.partitions), {})[name] = []
            for subject in audio.state.subjects or ():
                if is_for_group(subject):  # live audio, which the fleet's stream keeps too, and is not ours
                    continue
                name = incoming.name_in(subject)
                streams.get(partition_of(name, fleet.partitions), {}).setdefault(name, []).append(subject)
            end = (audio.state.last_seq or 0) + 1
            places = {p: self._whereabouts(subject_of_partition(p)) for p in partitions}
            return {p: await self._collect(streams[p], end, places[p]) for p in partitions}

        return await self._persist(read)

    async def _persist(self, read: Callable[[], Awaitable[T]]) -> T:
        try:
            return await persist(self._connection, "the transcripts", read)
        except ValueError as error:
            raise BrokerError(self._connection.options.address, str(error)) from error

    def _whereabouts(self, subject: str) -> Whereabouts:
        return Whereabouts(self._connection, self._jetstream, subject)

    async def _stored_audio(self, subject: str) -> StreamInfo:
        return await self._jetstream.stream_info(incoming.AUDIO_STREAM, subjects_filter=subject)

    async def _with_records(self, asked: str) -> set[str]:
        stored = await self._jetstream.stream_info(incoming.TRANSCRIPT_STREAM, subjects_filter=f"transcript.{asked}.*")
        self._made = stored.created
        return {name.split(".")[1] for name in stored.state.subjects or ()}

    async def _collect(self, streams: Mapping[str, list[str]], end: int, whereabouts: Whereabouts) -> ResumePoint:
        """Read where these streams end. Each comes with the subjects of its stored audio, none if there is none."""
        checkpoints: dict[str, Checkpoint] = {}
        moved: dict[str, str] = {}
        unsettled: set[str] = set()
        begin = end
        for stream, subjects in streams.items():
            last = await self._read_last(stream)
            self._last[stream] = last.seq or 0 if last is not None else 0
            checkpoint, recorded = (None, None) if last is None else (decode_checkpoint(last.data or b""), last.time)
            if checkpoint is not None:
                if (now := await whereabouts.moved(checkpoint.cursor, recorded)) is not None:
                    moved[stream] = f"{REPLACED} {now.seq} instead of {checkpoint.cursor.seq}"
                    checkpoint = replace(checkpoint, cursor=now)
                checkpoints[stream] = checkpoint
            first = min([await self._begin(subject, checkpoint) for subject in subjects], default=sys.maxsize)
            if first < sys.maxsize or (checkpoint is not None and not checkpoint.over):
                unsettled.add(stream)
            begin = min(begin, first)
        for stream, detail in moved.items():
            log.warning(detail, extra={"stream": stream})
        also = tuple(name for names in streams.values() for name in names if name.count(".") == 1)
        return ResumePoint(checkpoints, begin, moved, frozenset(unsettled), also)

    async def _begin(self, subject: str, checkpoint: Checkpoint | None) -> int:
        """Return the first unsettled message of a stream's subject, or `sys.maxsize` when all are settled."""
        newest = await self._jetstream.get_last_msg(incoming.AUDIO_STREAM, subject)
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
            await permitted(self._allowed)
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
