"""What a member has to do when it reads a plan: start, prepare, drain or abandon partitions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from transcriber.fleet.plan import Ownership, Plan


class Phase(StrEnum):
    """Where a member stands with a partition. A partition that it has nothing to do with has no phase."""

    PREPARING = "preparing"  # it listens, and works only when the owner has settled
    WORKING = "working"
    DRAINING = "draining"  # it settles what it has
    RELEASED = "released"  # it is done, and says so until the plan knows


class Step(StrEnum):
    """What to do next with a partition."""

    PREPARE = "prepare"  # listen and keep what comes
    START = "start"  # work
    DRAIN = "drain"  # take no more audio, settle, say up to where
    ABANDON = "abandon"  # stop at once and settle nothing: somebody else owns it
    FORGET = "forget"  # nothing is left to do


@dataclass(frozen=True, slots=True)
class Holding:
    """A partition that a member holds, or held, or is to hold, in one epoch of its ownership."""

    phase: Phase
    epoch: int


def steps(
    me: str, plan: Plan, held: Mapping[int, Holding], ready: Callable[[int, int], bool], *, prepares: bool
) -> Iterator[tuple[Step, int, Ownership]]:
    """Yield what this member has to do, with each partition and its entry in the plan.

    `ready` says whether the owner may drain a partition in an epoch. With `prepares`, as in live mode, the next owner
    listens before that.
    """
    for partition, entry in enumerate(plan.partitions):
        holding = held.get(partition)
        if entry.owner == me:
            step = _own(entry, holding)
            if step is Step.DRAIN and not ready(partition, entry.epoch):
                step = None
        else:
            step = _foreign(holding, mine_next=prepares and entry.to == me)
        if step is not None:
            yield step, partition, entry


def _own(entry: Ownership, holding: Holding | None) -> Step | None:
    """What to do with a partition that the plan gives to us."""
    if holding is None or holding.phase is Phase.PREPARING:
        return Step.START
    if holding.epoch != entry.epoch:  # it was given away and came back: what we have is not the latest
        return Step.FORGET if holding.phase is Phase.RELEASED else Step.ABANDON
    return Step.DRAIN if holding.phase is Phase.WORKING and entry.to not in (None, entry.owner) else None


def _foreign(holding: Holding | None, *, mine_next: bool) -> Step | None:
    """What to do with a partition that the plan gives to another member, or to nobody."""
    if holding is None:
        return Step.PREPARE if mine_next else None
    if holding.phase is Phase.PREPARING:
        return None if mine_next else Step.FORGET
    return Step.FORGET if holding.phase is Phase.RELEASED else Step.ABANDON
