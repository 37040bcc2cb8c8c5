"""The roster: when a member counts as missing, and when the fleet may be evened out."""

from __future__ import annotations

from dataclasses import replace

from transcriber.fleet.plan import Member, Plan
from transcriber.fleet.roster import SILENCE_SECS, Roster, without_owner
from transcriber.protocol.partitions import LEASE_SECS

A, B = Member(id="a=1", since=1.0), Member(id="b=1", since=2.0, loads={3: 2.0})


def roster() -> Roster:
    found = Roster(0.0)
    found.heard(A, 0.0)
    found.heard(B, 0.0)
    return found


def handed_over(plan: Plan) -> Plan:
    """The plan when its moves are done."""
    return replace(plan, partitions=tuple(replace(e, owner=e.to or e.owner, to=None) for e in plan.partitions))


def test_member_is_overdue_a_lease_after_its_last_word() -> None:
    """And not while it goes on renewing."""
    r = roster()
    r.heard(A, 4.0)
    assert r.overdue(LEASE_SECS - 0.1) == []
    assert r.overdue(LEASE_SECS) == ["b=1"]
    r.gone("b=1", LEASE_SECS)
    assert set(r.members) == {"a=1"}
    assert r.loads[3] == 2.0  # whoever gets the partition gets its streams


def test_member_is_silent_when_two_renewals_are_missing() -> None:
    """Not for a lease after trouble: the others could not renew theirs."""
    r = roster()
    r.heard(A, 10.0)
    r.heard(B, 10.0 + SILENCE_SECS)
    assert r.silent(10.0 + SILENCE_SECS - 0.1) == []
    assert r.silent(10.0 + SILENCE_SECS) == ["a=1"]
    r.troubled(11.0)
    assert r.silent(10.0 + LEASE_SECS) == []


def test_nobody_is_overdue_for_a_lease_after_trouble() -> None:
    """The others could not renew their leases either."""
    r = roster()
    r.troubled(20.0)
    assert r.overdue(20.0 + LEASE_SECS - 0.1) == []
    assert r.overdue(20.0 + LEASE_SECS) == ["a=1", "b=1"]


def test_partitions_without_owner_are_given_out_at_once() -> None:
    """Evening out waits for rest; an owner does not."""
    r = roster()
    plan = r.next_plan(Plan.empty(8), 0.1)
    assert without_owner(plan, r.members) == []
    assert without_owner(plan, ["a=1"]) == plan.owned("b=1")


def test_moves_wait_until_nobody_comes_or_goes() -> None:
    """A third member gets its share 1 s after it came, and the next moves wait 10 s."""
    r = roster()
    plan = r.next_plan(Plan.empty(12), 0.1)
    r.heard(Member(id="c=1", since=3.0), 20.0)
    assert r.next_plan(plan, 20.9) is plan
    moving = r.next_plan(plan, 21.0)
    assert [entry.to for entry in moving.partitions].count("c=1") in {3, 4}
    r.heard(replace(A, loads=dict.fromkeys(plan.owned("a=1"), 9.0)), 23.0)
    assert r.next_plan(plan, 30.9) is plan
    assert r.next_plan(plan, 31.0) is not plan


def test_member_gets_its_share_soon_after_the_last_moves() -> None:
    """The wait between two rounds of moves is for changed loads. Somebody who joins does not wait for it."""
    r = roster()
    plan = r.next_plan(Plan.empty(12), 0.1)
    r.heard(Member(id="c=1", since=3.0), 20.0)
    moved = handed_over(r.next_plan(plan, 21.0))
    r.heard(Member(id="d=1", since=4.0), 23.0)
    assert r.next_plan(moved, 23.5) is moved
    assert [entry.to for entry in r.next_plan(moved, 24.0).partitions].count("d=1") in {2, 3}


def test_prepared_terms_come_from_all_members() -> None:
    """An owner drains when the next one listens, whichever that is."""
    r = roster()
    r.heard(replace(A, prepared=frozenset({(1, 4)})), 1.0)
    assert r.prepared() == {(1, 4)}
