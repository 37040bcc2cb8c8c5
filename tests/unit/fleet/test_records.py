"""Plans and members survive their way through the bucket, and nothing else passes for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcriber.fleet.plan import Member, Ownership, Plan
from transcriber.fleet.records import decode_member, decode_plan, encode_member, encode_plan

MEMBERS = st.none() | st.sampled_from(["a=1", "b=2", "c=3"])
ENTRIES = st.builds(Ownership, MEMBERS, st.integers(0, 10**6), MEMBERS, st.booleans())
TERMS = st.frozensets(st.tuples(st.integers(0, 63), st.integers(0, 99)), max_size=5)


@given(st.builds(Plan, st.lists(ENTRIES, max_size=9).map(tuple), st.integers(0, 10**6), st.booleans()))
def test_plan_is_decoded_as_it_was_encoded(plan: Plan) -> None:
    """Every entry, with owners, heirs and epochs."""
    assert decode_plan(encode_plan(plan)) == plan


@given(TERMS, TERMS, st.booleans(), st.dictionaries(st.integers(0, 63), st.integers(0, 9).map(float)))
def test_member_is_decoded_as_it_was_encoded(
    released: frozenset[tuple[int, int]], prepared: frozenset[tuple[int, int]], draining: bool, loads: dict[int, float]
) -> None:
    """All that others must know of it."""
    member = Member(id="a=1", since=1.5, draining=draining, released=released, prepared=prepared, loads=loads)
    assert decode_member(encode_member(member)) == member


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"v": 2}', b'{"v": 1, "members": 3}', b"\xff"])
def test_other_json_is_neither_plan_nor_member(payload: bytes) -> None:
    """A value of another version, or of somebody else, is an error and no empty plan."""
    for decode in (decode_plan, decode_member):
        with pytest.raises(ValueError):  # noqa: PT011 - json's own, and ours
            decode(payload)


def test_plan_of_a_large_fleet_fits_into_a_message() -> None:
    """4,096 partitions of 100 members take less than an eighth of the server's default max_payload."""
    plan = Plan(tuple(Ownership(f"pod-{p % 100}-8080=0123abcd", 10**5) for p in range(4096)), 10**6)
    assert len(encode_plan(plan)) < 1024 * 1024 / 8
