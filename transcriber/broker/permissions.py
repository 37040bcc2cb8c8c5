"""Lists the least permissions that each kind of client needs, as NATS server configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from transcriber.protocol import incoming
from transcriber.protocol.partitions import FLEETS, MEMBERS, audio_subject, drain_subject, group_of, presence_subject

if TYPE_CHECKING:
    from transcriber.protocol.partitions import FleetOptions

_API = "$JS.API"
_ANSWERS = ("_INBOX.>",)
_REQUESTS = (f"{incoming.TRANSCRIBE}.*", f"{incoming.TRANSCRIBE}.*.*")  # for any model, and for one
_BUCKET = f"KV_{incoming.LEASES}"
_STORED = incoming.AUDIO_STREAM, incoming.TRANSCRIPT_STREAM, _BUCKET
_DURABLE_SETUP = (
    *(f"{_API}.STREAM.{verb}.{name}" for name in _STORED for verb in ("INFO", "CREATE")),
    f"{_API}.CONSUMER.LIST.{incoming.AUDIO_STREAM}",
)


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that one user may publish and subscribe to. With `answers` it may also reply to requests."""

    user: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False

    def __str__(self) -> str:
        lines = [f'    {{ user: "{self.user}", password: $TRANSCRIBER_{self.user.upper()}_PASSWORD, permissions: {{']
        lines += [f"        publish: {_list(self.publish)}", f"        subscribe: {_list(self.subscribe)}"]
        lines += ["        allow_responses: true"] if self.answers else []
        return "\n".join([*lines, "    } }"])


def _list(subjects: tuple[str, ...]) -> str:
    if not subjects:
        return '{ deny: [">"] }'  # an empty list would allow everything
    return "[" + ", ".join(f'"{subject}"' for subject in subjects) + "]"


def of_subject(subject: str, fleet: FleetOptions | None = None) -> list[Permissions]:
    """Return the users for an audio subject: daemon, producer, reader, setup, operator and gateway.

    A user may do only what is listed for it. So only the operator may swap models. With a `fleet`, the daemon is one of
    its members, and the operator may also drain one. A group's daemon (P-40) hears live audio, and stores nothing.
    """
    grouped = bool(group_of(subject))
    results = "transcript.*.*" if grouped else f"transcript.{subject.partition('.')[2]}.*"
    control = incoming.model_control_of(subject)
    daemon = Permissions(
        "daemon",
        (results, *(() if grouped else _durable(subject))),
        (*_ANSWERS, *_REQUESTS, control, "$SRV.>", *((subject,) if grouped and fleet is None else ())),
        answers=True,
    )
    producer = Permissions("producer", (subject,), _ANSWERS)
    reader = Permissions("reader", (), (results,))
    setup = Permissions("setup", () if grouped else _DURABLE_SETUP, _ANSWERS)
    operator = Permissions("operator", (control, "$SRV.>"), _ANSWERS)
    # Its streams have names of its own. They go to the daemons of `audio.*`, and to those of groups.
    audio_and_requests = (f"{incoming.AUDIO}.>", *_REQUESTS, "$SRV.STATS.transcriber")
    gateway = Permissions("gateway", audio_and_requests, (*_ANSWERS, "transcript.*.*"))
    plain = [daemon, producer, reader, setup, operator, gateway]
    return plain if fleet is None else [_with(one, more) for one, more in zip(plain, _of_fleet(fleet), strict=True)]


def _durable(subject: str) -> tuple[str, ...]:
    """What a daemon publishes to in durable mode, besides results."""
    audio, stored, consumer = incoming.AUDIO_STREAM, _STORED, incoming.consumer_of(subject)
    return (
        *(f"{_API}.STREAM.INFO.{name}" for name in stored),
        *(f"{_API}.STREAM.MSG.GET.{name}" for name in stored),
        f"{_API}.DIRECT.GET.{_BUCKET}.>",
        f"{_API}.CONSUMER.CREATE.{audio}.{consumer}.>",
        *(f"{_API}.CONSUMER.{verb}.{audio}.{consumer}" for verb in ("DELETE", "INFO", "MSG.NEXT")),
        f"$KV.{incoming.LEASES}.{incoming.key_of(subject)}",
    )


def _with(one: Permissions, more: Permissions) -> Permissions:
    return replace(one, publish=one.publish + more.publish, subscribe=one.subscribe + more.subscribe)


def _of_fleet(fleet: FleetOptions) -> list[Permissions]:
    """Return what each user may do besides, in the same order."""
    audio, buckets = incoming.AUDIO_STREAM, (f"KV_{MEMBERS}", f"KV_{FLEETS}")
    subject = audio_subject("*.*", fleet.group)
    consumers = (
        f"{_API}.CONSUMER.CREATE.{audio}.*",
        f"{_API}.CONSUMER.CREATE.{audio}.*.>",
        *(f"{_API}.CONSUMER.{verb}.{audio}.*" for verb in ("DELETE", "INFO", "MSG.NEXT")),
    )
    entries = tuple(f"$KV.{bucket}.{fleet.name}.>" for bucket in (MEMBERS, FLEETS))
    reads = tuple(f"{_API}.STREAM.{verb}.{bucket}" for verb in ("INFO", "MSG.GET") for bucket in buckets)
    return [
        Permissions(
            "daemon",
            (*reads, *entries, *(() if fleet.group else consumers), presence_subject(fleet.name, "*")),
            (*entries, subject, *(asked(fleet.name, "*") for asked in (drain_subject, presence_subject))),
        ),
        Permissions("producer", (subject,), ()),
        Permissions("reader", (), ()),
        Permissions(
            "setup",
            (
                *(f"{_API}.STREAM.{verb}.{bucket}" for verb in ("INFO", "CREATE") for bucket in buckets),
                *(() if fleet.group else (f"{_API}.STREAM.UPDATE.{audio}",)),
            ),
            (),
        ),
        Permissions("operator", (*reads, drain_subject(fleet.name, "*")), ()),
        Permissions("gateway", reads, ()),
    ]


def configuration(subject: str, fleet: FleetOptions | None = None) -> str:
    """Return an `authorization` block for these users; the passwords come from the server's environment."""
    users = "\n".join(map(str, of_subject(subject, fleet)))
    return f"authorization {{\n  users: [\n{users}\n  ]\n}}\n"
