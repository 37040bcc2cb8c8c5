"""Creates the streams and the bucket that durable mode needs on the server, or checks existing ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nats.js.errors
from nats.js.api import (
    AckPolicy,
    DiscardPolicy,
    KeyValueConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    SubjectTransform,
)

from transcriber.broker import lease
from transcriber.broker.patience import persist
from transcriber.domain.errors import BrokerError
from transcriber.protocol import incoming
from transcriber.protocol.partitions import FLEETS, LEASE_SECS, MEMBERS

if TYPE_CHECKING:
    from nats.js.client import JetStreamContext

    from transcriber.broker.connection import Connection
    from transcriber.protocol.partitions import FleetOptions

_ANSWER_SECS = 5.0  # creating a replicated stream takes the servers a moment
# A record whose acknowledgement was lost is sent again at once. A producer repeats a chunk after a reconnect, within
# NATS_RECONNECT_TIMEOUT_SECS.
_DUPLICATES_SECS = 120.0


@dataclass(frozen=True, slots=True)
class Storage:
    """How long, and in how many replicas, audio and transcripts are kept. Seconds and bytes; 0 means no limit."""

    audio_age: float = 86_400.0
    audio_bytes: int = 0
    transcript_age: float = 0.0
    replicas: int = 1


def streams(storage: Storage, fleet: FleetOptions | None = None) -> list[StreamConfig]:
    """Return the streams of durable mode. Those of a fleet put each stream's partition into its subject.

    A full stream refuses new messages. If it deleted old ones instead, it could delete what nobody has read yet. Only
    age deletes audio.
    """

    def stream(name: str, subjects: list[str], age: float, size: int) -> StreamConfig:
        return StreamConfig(
            name=name,
            subjects=subjects,
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_age=age,
            max_bytes=size or -1,
            num_replicas=storage.replicas,
            duplicate_window=min(_DUPLICATES_SECS, age or _DUPLICATES_SECS),
            allow_direct=True,
        )

    audio = stream(incoming.AUDIO_STREAM, [f"{incoming.AUDIO}.*"], storage.audio_age, storage.audio_bytes)
    if fleet is not None:
        audio.subjects = [fleet.source, f"{incoming.AUDIO}.*.*"]
        audio.subject_transform = SubjectTransform(fleet.source, fleet.mapped)
    return [
        audio,
        stream(incoming.TRANSCRIPT_STREAM, ["transcript.*.final", "transcript.*.event"], storage.transcript_age, 0),
    ]


async def set_up(
    connection: Connection, storage: Storage, fleet: FleetOptions | None = None, *, live: bool = False
) -> list[str]:
    """Create or check the streams and the buckets; return a line for each. Raises `BrokerError`.

    With `live`, only the buckets of a fleet.
    """
    jetstream = connection.client.jetstream(timeout=_ANSWER_SECS)
    made: dict[str, str] = {}  # by an attempt that was interrupted

    async def attempt() -> list[str]:
        for wanted in () if live else streams(storage, fleet):
            name = wanted.name or ""
            made[name] = made.get(name) or await _stream(connection, jetstream, wanted)
        buckets = {} if live else {incoming.LEASES: lease.LEASE_SECS}
        buckets |= {MEMBERS: LEASE_SECS, FLEETS: 0.0} if fleet is not None else {}
        lines = [] if live else [*made.values(), *await _consumers(connection, jetstream)]
        for name, ttl in buckets.items():
            lines.append(await _bucket(connection, jetstream, name, ttl, storage.replicas))
        return lines

    return await persist(connection, "setup", attempt)


async def _stream(connection: Connection, jetstream: JetStreamContext, wanted: StreamConfig) -> str:
    name = wanted.name or ""
    try:
        found, done = (await jetstream.stream_info(name)).config, "is there"
    except nats.js.errors.NotFoundError:
        await jetstream.add_stream(wanted)
        return f"{name}: made"
    if wanted.subject_transform is not None and found.subject_transform is None:
        changed = found.evolve(subjects=wanted.subjects, subject_transform=wanted.subject_transform)
        found = (await jetstream.update_stream(changed)).config
        done = "has partitions now"
    different = [
        f"{field} is {_shown(getattr(found, field))}, not {_shown(getattr(wanted, field))}"
        for field in ("subjects", "retention", "storage", "discard", "max_age", "max_bytes", "num_replicas")
        if getattr(found, field) != getattr(wanted, field)
    ]
    if different:
        raise BrokerError(
            connection.options.address, f"stream {name} exists with other settings: {'; '.join(different)}"
        )
    if found.subject_transform != wanted.subject_transform:
        reason = f"stream {name} has other partitions: {_mapping(found)}, not {_mapping(wanted)}"
        raise BrokerError(connection.options.address, reason)
    return f"{name}: {done}"


def _mapping(config: StreamConfig) -> str:
    return "none" if config.subject_transform is None else config.subject_transform.dest


async def _consumers(connection: Connection, jetstream: JetStreamContext) -> list[str]:
    """Check the consumers with our names. Daemons create them again at each start, from where their transcripts end."""
    lines = []
    for info in await jetstream.consumers_info(incoming.AUDIO_STREAM):
        if not info.name.startswith(incoming.consumer_of("audio.")):
            continue
        found, different = info.config, []
        if found.ack_policy != AckPolicy.NONE:
            different.append(f"ack_policy is {_shown(found.ack_policy)}, not none")
        subject = found.filter_subject or next(iter(found.filter_subjects or ()), "")
        if incoming.consumer_of(subject) != info.name:
            different.append(f"filter_subject is {subject}, which another name stands for")
        if different:
            reason = f"consumer {info.name} exists with other settings: {'; '.join(different)}"
            raise BrokerError(connection.options.address, reason)
        lines.append(f"{info.name}: is there")
    return lines


async def _bucket(connection: Connection, jetstream: JetStreamContext, name: str, ttl: float, replicas: int) -> str:
    """Create or check a bucket whose entries run out after `ttl` seconds, or stay if that is 0."""
    try:
        bucket = await jetstream.key_value(name)
    except nats.js.errors.NotFoundError:
        config = KeyValueConfig(name, ttl=ttl or None, history=1, replicas=replicas)
        await jetstream.create_key_value(config)
        return f"{name}: made"
    found = (await bucket.status()).ttl or 0.0
    if found != ttl:
        reason = f"bucket {name} exists with other settings: ttl is {_shown(found)}, not {ttl:g}"
        raise BrokerError(connection.options.address, reason)
    return f"{name}: is there"


def _shown(value: Any) -> str:  # noqa: ANN401 - a setting of any type
    return f"{value:g}" if isinstance(value, float) else str(getattr(value, "value", value))
