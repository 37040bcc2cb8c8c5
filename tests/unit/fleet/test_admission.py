"""The fleet's room: sums over members, and when a new stream is refused."""

from __future__ import annotations

from transcriber.fleet.admission import refusal, room
from transcriber.fleet.plan import Member

FULL = Member(id="a=1", capacity=2.0, loads={1: 2.0}, wait=7.5)


def test_room_is_the_sum_without_the_draining_members() -> None:
    """What a draining member carries will need room elsewhere."""
    others = [Member(id="b=1", capacity=5.0, loads={2: 1.0}), Member(id="c=1", capacity=9.0, draining=True)]
    found = room([FULL, *others])
    assert (found.load, found.capacity, found.wait, found.full) == (3.0, 7.0, 0.0, False)


def test_member_with_room_refuses_nothing() -> None:
    """The others do not matter then."""
    own = Member(id="b=1", capacity=5.0, loads={2: 1.0})
    assert refusal(own, [own, FULL]) is None


def test_full_member_takes_a_stream_while_others_have_room() -> None:
    """The plan then moves a partition."""
    assert refusal(FULL, [FULL, Member(id="b=1", capacity=5.0)]) is None


def test_full_fleet_refuses_and_tells_the_wait() -> None:
    """The sentence has the load, the capacity and the estimated wait."""
    told = refusal(FULL, [FULL])
    assert told == "the fleet carries 2 streams, and 2 are what it can; estimated_wait=7.5"
