"""The owners of the partitions, and how they change: one pure function from a plan to the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from transcriber.fleet import assignment
from transcriber.protocol.partitions import name_of

Term = tuple[int, int]  # a partition, and the epoch of its ownership


@dataclass(frozen=True, slots=True)
class Ownership:
    """One partition's owner. `epoch` counts its owners; `to` is the member that is to have it next.

    `clean`: the owner before gave it up in order, so it writes no more.
    """

    owner: str | None = None
    epoch: int = 0
    to: str | None = None
    clean: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """The ownership of every partition. `generation` counts the plans; `live`: all members work on live audio."""

    partitions: tuple[Ownership, ...]
    generation: int = 0
    live: bool = False

    @classmethod
    def empty(cls, partitions: int, *, live: bool = False) -> Plan:
        """The plan of a fleet that has no member yet."""
        return cls((Ownership(),) * partitions, live=live)

    def owned(self, member: str) -> list[int]:
        """The partitions of a member."""
        return [p for p, entry in enumerate(self.partitions) if entry.owner == member]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What a member says of itself. `capacity`: streams of uninterrupted speech that it can carry.

    `loads`: streams at work by partition. `released`: terms that it has given up in order. `prepared`: partitions that
    it is to have and listens to already, each with the epoch of the present owner. `since`: when it started, in seconds
    since 1970. `wait`: seconds that a new window would wait; `lag`: seconds that stored audio is ahead.
    """

    id: str
    since: float = 0.0
    capacity: float = 1.0
    draining: bool = False
    loads: Mapping[int, float] = field(default_factory=dict)
    released: frozenset[Term] = frozenset()
    prepared: frozenset[Term] = frozenset()
    wait: float = 0.0
    lag: float = 0.0

    @property
    def load(self) -> float:
        """Streams at work, over all partitions."""
        return sum(self.loads.values())


def present(members: Mapping[str, Member]) -> dict[str, Member]:
    """The members without those that were started again: of two runs under one name, the later one counts."""
    latest: dict[str, Member] = {}
    for member in sorted(members.values(), key=lambda m: (m.since, m.id)):
        latest[name_of(member.id)] = member
    return {member.id: member for member in latest.values()}


def coordinator(members: Mapping[str, Member]) -> str | None:
    """The member that makes the next plan: the one that has been there longest."""
    return min(members, key=lambda one: (members[one].since, one), default=None)


def advance(plan: Plan, members: Mapping[str, Member], loads: Mapping[int, float], *, balance: bool = True) -> Plan:
    """Return the next plan, the same one when nothing is to change.

    `members` are those whose lease holds. `loads`: the last known streams of each partition. Without `balance`, only
    partitions without owner and those of draining members change hands.
    """
    entries = [_settled(p, entry, members) for p, entry in enumerate(plan.partitions)]
    capacities = assignment.comparable({m.id: m.capacity for m in members.values() if not m.draining})
    if capacities:
        _give_out(entries, loads, capacities)
        if balance and not any(entry.to is not None for entry in entries):
            for partition, member in assignment.moves([e.owner for e in entries], loads, capacities).items():
                entries[partition] = replace(entries[partition], to=member)
    after = tuple(entries)
    return plan if after == plan.partitions else Plan(after, plan.generation + 1, plan.live)


def _settled(partition: int, entry: Ownership, members: Mapping[str, Member]) -> Ownership:
    """The entry without a dead owner, or after a hand-over that is done."""
    if entry.owner is None:
        return entry
    owner = members.get(entry.owner)
    heir = members.get(entry.to) if entry.to is not None else None
    if owner is None:
        return Ownership(None, entry.epoch, clean=False)
    if (partition, entry.epoch) in owner.released:
        if heir is None or heir.draining:
            return Ownership(None, entry.epoch)
        return Ownership(heir.id, entry.epoch + 1)
    return replace(entry, to=None) if entry.to is not None and (heir is None or heir.draining) else entry


def _give_out(entries: list[Ownership], loads: Mapping[int, float], capacities: Mapping[str, float]) -> None:
    """Give every partition without owner to a member."""
    owners = [entry.to or entry.owner for entry in entries]
    for partition, member in assignment.give_out(owners, loads, capacities).items():
        entry = entries[partition]
        if entry.owner is None:
            entries[partition] = Ownership(member, entry.epoch + 1, clean=entry.clean)
        else:  # of a draining member
            entries[partition] = replace(entry, to=member)
