"""The interface between a member and the work on its partitions, and what a member says of both."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from transcriber.fleet.handover import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transcriber.fleet.handover import Holding
    from transcriber.fleet.plan import Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a member carries and could carry, as in `Member`."""

    capacity: float
    loads: Mapping[int, float] = field(default_factory=dict)
    wait: float = 0.0
    lag: float = 0.0


class Holder(Protocol):
    """Does the work on partitions. `prepares`: whether the next owner listens before the present one drains."""

    prepares: bool

    async def prepare(self, partition: int) -> None:
        """Listen, and keep what comes."""
        ...

    async def start(self, batch: Mapping[int, tuple[int, bool]]) -> None:
        """Work on these partitions. Each comes with its epoch, and whether its last owner gave it up in order."""
        ...

    async def drain(self, partition: int) -> None:
        """Take no more audio, settle what there is, and say up to where."""
        ...

    async def forget(self, partition: int) -> None:
        """Leave a partition that is settled, or was only prepared."""
        ...

    def figures(self) -> Figures:
        """What this member carries and could carry now."""
        ...


def describe(member: Member, figures: Figures, held: Mapping[int, Holding]) -> Member:
    """Return the member with what it carries now, has released and listens to."""
    released, prepared = (
        frozenset((p, h.epoch) for p, h in held.items() if h.phase is phase)
        for phase in (Phase.RELEASED, Phase.PREPARING)
    )
    return replace(
        member,
        capacity=figures.capacity,
        loads=figures.loads,
        wait=figures.wait,
        lag=figures.lag,
        released=released,
        prepared=prepared,
    )
