"""Whether the fleet has room for another stream, from what its members say. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transcriber.fleet.plan import Member


@dataclass(frozen=True, slots=True)
class Room:
    """Streams at work and streams that fit, over all members that take part; `wait` in seconds, of the idlest one."""

    load: float
    capacity: float
    wait: float

    @property
    def full(self) -> bool:
        """Whether one more stream would be one too many."""
        return self.load + 1 > self.capacity


def room(members: Iterable[Member]) -> Room:
    """Add up what the members carry and could carry. A draining member gives its streams to others."""
    everybody = list(members)
    taking = [m for m in everybody if not m.draining]
    return Room(
        sum(m.load for m in everybody),
        sum(m.capacity for m in taking),
        min((m.wait for m in taking), default=0.0),
    )


def refusal(own: Member, members: Iterable[Member]) -> str | None:
    """Why a member must refuse a new stream; None when it may take it.

    It may while it has room itself, and while others have: then the plan moves a partition to them.
    """
    if own.load + 1 <= own.capacity:
        return None
    fleet = room(members)
    if not fleet.full:
        return None
    return (
        f"the fleet carries {fleet.load:.0f} streams, and {fleet.capacity:.0f} are what it can; "
        f"estimated_wait={fleet.wait:.1f}"
    )
