"""The members that are there, by the clock of one of them: what it heard, and which are overdue. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transcriber.fleet import plan as plans
from transcriber.protocol.partitions import LEASE_SECS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from transcriber.fleet.plan import Member, Plan

RENEW_SECS = LEASE_SECS / 5  # three renewals may fail
# After which others ask the server whether a member is connected: two renewals are missing. One may be a bit late.
SILENCE_SECS = 2 * RENEW_SECS
PLAN_SECS = 0.25  # between two looks at who is missing
# What a lease loses to clocks that are not equally fast, and to the way of an answer: its holder stops so much earlier.
MARGIN_SECS = 0.5
_SETTLE_SECS = 1.0  # members that start together count as one change, and everybody has told its load since
_AGAIN_SECS = 10.0  # between two rounds of moves among the same members, so that loads show what the first one did


class Roster:
    """What one member knows of all. `now` is its own monotonic clock, in seconds.

    A member is gone when the server says that its entry is. The roster says when to ask: a lease after it was last
    heard of, or earlier whether its connection is gone. After trouble with the server, nobody counts as gone for a
    lease: the others could not renew theirs.
    """

    def __init__(self, now: float) -> None:
        self._members: dict[str, Member] = {}
        self._heard: dict[str, float] = {}
        self._loads: dict[int, float] = {}
        self._sound_since = now  # since when our own renewals have worked
        self._changed = now  # when somebody came, went, or began to drain
        self._balanced = -_AGAIN_SECS

    @property
    def members(self) -> dict[str, Member]:
        """Those that are there; of two runs under one name, the later one."""
        return plans.present(self._members)

    @property
    def loads(self) -> Mapping[int, float]:
        """The last known streams at work of each partition."""
        return self._loads

    def heard(self, member: Member, now: float) -> None:
        """Note what a member says of itself."""
        old = self._members.get(member.id)
        if old is None or old.draining != member.draining:
            self._changed = now
        self._members[member.id] = member
        self._heard[member.id] = now
        self._loads.update(member.loads)

    def gone(self, member: str, now: float) -> None:
        """Note that a member's entry is gone."""
        if self._members.pop(member, None) is not None:
            del self._heard[member]
            self._changed = now

    def troubled(self, now: float) -> None:
        """Note that the server did not answer us."""
        self._sound_since = now

    def overdue(self, now: float) -> list[str]:
        """The members whose leases have run out, if ours has been renewed all the time."""
        return self._unheard(LEASE_SECS, now)

    def silent(self, now: float) -> list[str]:
        """The members whose last two renewals are missing, if ours have worked for a lease."""
        return self._unheard(SILENCE_SECS, now)

    def _unheard(self, seconds: float, now: float) -> list[str]:
        if now - self._sound_since < LEASE_SECS:
            return []
        return [one for one, heard in self._heard.items() if now - heard >= seconds]

    def next_plan(self, plan: Plan, now: float) -> Plan:
        """Return the next plan; moves that only even out wait until the fleet has been at rest."""
        seen = self._balanced >= self._changed  # the last round of moves was for these members
        balance = now - self._changed >= _SETTLE_SECS and (not seen or now - self._balanced >= _AGAIN_SECS)
        after = plans.advance(plan, self.members, self._loads, balance=balance)
        if balance and _moving(after) > _moving(plan):
            self._balanced = now
        return after

    def prepared(self) -> set[plans.Term]:
        """The terms whose next owners listen already."""
        return {term for member in self._members.values() for term in member.prepared}


def _moving(plan: Plan) -> int:
    return sum(entry.to is not None for entry in plan.partitions)


def without_owner(plan: Plan, members: Iterable[str]) -> list[int]:
    """The partitions that none of these members owns."""
    there = set(members)
    return [p for p, entry in enumerate(plan.partitions) if entry.owner not in there]
