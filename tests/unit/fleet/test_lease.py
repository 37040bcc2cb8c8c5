"""A member's own lease: when it holds, and what must come before the next renewal."""

from __future__ import annotations

from transcriber.fleet.lease import OwnLease
from transcriber.fleet.roster import MARGIN_SECS, SILENCE_SECS
from transcriber.protocol.partitions import LEASE_SECS

HELD = LEASE_SECS - MARGIN_SECS


def test_lease_counts_from_when_its_renewal_was_asked_for() -> None:
    """The answer may take its time; the server's clock began before it."""
    lease = OwnLease(0.0)
    lease.ask(1.0)
    lease.answered(1.0)
    assert lease.holds(1.0 + HELD - 0.1)
    assert not lease.holds(1.0 + HELD)


def test_renewal_without_answer_is_in_doubt() -> None:
    """It does not prolong the lease, and the next one must wait for an answer to something else."""
    lease = OwnLease(0.0)
    assert not lease.doubtful
    lease.ask(1.0)
    assert lease.doubtful
    assert not lease.holds(HELD)
    lease.answered(1.0)
    assert not lease.doubtful


def test_late_renewal_counts_once_the_plan_was_read() -> None:
    """Somebody else may own the partitions by then."""
    lease = OwnLease(0.0)
    lease.ask(HELD + 1)
    lease.answered(HELD + 1)
    assert not lease.holds(HELD + 1)
    lease.verify()
    assert lease.holds(HELD + 1)


def test_void_lease_holds_no_more() -> None:
    """Somebody else owns what we work on, whatever the clock says."""
    lease = OwnLease(0.0)
    lease.void()
    assert not lease.holds(0.1)


def test_lease_from_before_a_reconnect_is_short() -> None:
    """Others may have removed the entry while there was no connection. A renewal on the new one lasts as ever."""
    lease = OwnLease(0.0, connection=3)
    short = SILENCE_SECS - MARGIN_SECS
    assert lease.holds(short, connection=3)
    assert lease.holds(short - 0.1, connection=4)
    assert not lease.holds(short, connection=4)
    lease.ask(short, connection=4)
    lease.answered(short, connection=4)
    assert not lease.holds(short, connection=4)  # before the plan is read
    lease.verify()
    assert lease.holds(short + HELD - 0.1, connection=4)
