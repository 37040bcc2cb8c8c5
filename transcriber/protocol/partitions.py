"""Names of groups and fleets on the wire: partitions, their subjects, and the keys of members and plans. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from transcriber.protocol import incoming

MEMBERS = "TRANSCRIBER_MEMBERS"  # the bucket of members: an entry that is not renewed runs out
FLEETS = "TRANSCRIBER_FLEETS"  # the bucket of plans and positions, which stay
PARTITIONS = 64  # four for each of sixteen daemons, so that one of them can be 1.25 times as busy as the mean at most
MOST_PARTITIONS = 4096  # a plan of so many still fits into a message of 128 kB
# After which a member's entry is deleted. A live stream may be interrupted for 10 s: that is a lease, and as much again
# to notice, to plan and to start.
LEASE_SECS = 5.0
NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")  # of a fleet: a token of a subject

GROUP = r"(?![0-9]+\.)[A-Za-z0-9_-]{1,32}"  # in `audio.<group>.*`; what is all digits there is a partition
_ALL_OF_GROUP = re.compile(rf"{incoming.AUDIO}\.(?:({GROUP})\.)?\*")
_IN_GROUP = re.compile(rf"{incoming.AUDIO}\.{GROUP}\..*")
_OFFSET_BASIS, _PRIME = 2166136261, 16777619  # FNV-1a with 32 bits, the hash of partition() in nats-server
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """The fleet that a process belongs to: its name, its number of partitions, and its group (empty: the default)."""

    name: str
    partitions: int = PARTITIONS
    group: str = ""

    def subject_of(self, stream: str) -> str:
        """The subject of a stream's live audio, with its partition."""
        return audio_subject(stream, self.group, self.partitions)

    @property
    def source(self) -> str:
        """The subjects to which producers publish that do not know of partitions."""
        return audio_subject("*", self.group)

    @property
    def mapped(self) -> str:
        """What the server makes of those subjects, in its own notation."""
        return audio_subject(f"{{{{partition({self.partitions},1)}}}}.{{{{wildcard(1)}}}}", self.group)


def partition_of(stream: str, partitions: int) -> int:
    """The partition of a stream, as the server's `partition()` has it."""
    value = _OFFSET_BASIS
    for byte in stream.encode():
        value = (value ^ byte) * _PRIME & 0xFFFFFFFF
    return value % partitions


def audio_subject(stream: str, group: str = "", partitions: int | None = None) -> str:
    """The subject of a stream's audio for a group (P-40), and with its partition if the group is a fleet."""
    name = stream if partitions is None else f"{partition_of(stream, partitions)}.{stream}"
    return f"{incoming.AUDIO}.{group}.{name}" if group else f"{incoming.AUDIO}.{name}"


def group_of(subject: str) -> str | None:
    """The group of daemons with this subject: empty for `audio.*`, the default; None for `audio.<stream>`."""
    found = _ALL_OF_GROUP.fullmatch(subject)
    return None if found is None else found[1] or ""


def is_for_group(subject: str) -> bool:
    """Whether the subject of a message is that of a group's audio."""
    return _IN_GROUP.fullmatch(subject) is not None


def subject_of_partition(partition: int, group: str = "") -> str:
    """The subjects of one partition's audio."""
    return audio_subject(f"{partition}.*", group)


def member_key(fleet: str, member: str) -> str:
    """The key of a member's entry."""
    return f"{fleet}.{member}"


def plan_key(fleet: str) -> str:
    """The key of a fleet's plan."""
    return f"{fleet}.plan"


def position_key(fleet: str, partition: int) -> str:
    """The key of the places up to which a partition's live streams are settled."""
    return f"{fleet}.position.{partition}"


def drain_subject(fleet: str, member: str) -> str:
    """Where a member takes the request to give up its partitions."""
    return f"transcriber.fleet.{fleet}.drain.{member}"


def presence_subject(fleet: str, member: str) -> str:
    """Where a member answers, and the server tells that nobody does once the member's connection is gone."""
    return f"transcriber.fleet.{fleet}.presence.{member}"


def member_name(host: str, port: int) -> str:
    """A member's name: the same after a restart, and without characters that a key cannot have."""
    return _NOT_ALLOWED.sub("_", f"{host}-{port}")


def name_of(member: str) -> str:
    """The name in a member's id, `<name>=<run>`: two runs of one process have the same."""
    return member.partition("=")[0]
