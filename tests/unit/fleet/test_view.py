"""What a fleet looks like from outside, as JSON and as a table."""

from __future__ import annotations

from transcriber.fleet.plan import Member, Ownership, Plan
from transcriber.fleet.view import as_text, view

PLAN = Plan((Ownership("a=1", 2), Ownership("b=1", 1, to="a=1"), Ownership("gone=1", 4)), generation=7, live=True)
MEMBERS = {
    "a=1": Member(id="a=1", since=2.0, capacity=10.0, loads={0: 3.0}, wait=0.5),
    "b=1": Member(id="b=1", since=1.0, capacity=10.0, loads={1: 1.5}, draining=True, lag=4.0),
}


def test_view_adds_up_what_members_say() -> None:
    """Load of all, capacity of those that take part, partitions of each, and what has nobody."""
    seen = view(PLAN, MEMBERS)
    assert (seen["mode"], seen["generation"], seen["coordinator"]) == ("live", 7, "b=1")
    assert (seen["load"], seen["capacity"], seen["full"]) == (4.5, 10.0, False)
    assert (seen["moving"], seen["moves"], seen["without_owner"]) == (1, 4, [2])
    assert [(m["name"], m["partitions"], m["draining"]) for m in seen["members"]] == [
        ("b", [1], True),
        ("a", [0], False),
    ]
    assert [p["load"] for p in seen["partitions"]] == [3.0, 1.5, 0.0]


def test_table_has_a_line_for_each_member_and_the_whole() -> None:
    """Columns line up, and the last line sums up."""
    head, first, second, whole = as_text(view(PLAN, MEMBERS)).splitlines()
    assert head.split() == ["member", "partitions", "streams", "capacity", "wait", "s", "lag", "s"]
    assert first.split() == ["b", "1", "1.5", "10.0", "0.0", "4.0", "draining"]
    assert second.split() == ["a", "1", "3.0", "10.0", "0.5", "0.0"]
    assert whole == "live, 3 partitions, plan 7: 4.5 of 10.0 streams, 1 moving, 1 without owner, 4 moves so far"
