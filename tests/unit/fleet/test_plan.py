"""The plan: fair shares, few moves, and nothing changes while nothing happens."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from transcriber.fleet.plan import Member, Ownership, Plan, advance, coordinator, present

NAMES = [f"m{n}=1" for n in range(12)]
LOADS = st.dictionaries(st.integers(0, 63), st.floats(0, 8), max_size=64)


def members(*names: str, **changes: object) -> dict[str, Member]:
    return {name: replace(Member(id=name, since=float(n)), **changes) for n, name in enumerate(names)}


def settled(plan: Plan, present: dict[str, Member], loads: dict[int, float] | None = None) -> tuple[Plan, int]:
    """The plan when all hand-overs are done, and how many there were."""
    moves = 0
    for _ in range(200):
        after = advance(plan, present, loads or {})
        leaving = [(p, e) for p, e in enumerate(after.partitions) if e.to is not None]
        if after is plan and not leaving:
            return plan, moves
        moves += len(leaving)
        told = {
            name: replace(m, released=frozenset((p, e.epoch) for p, e in leaving if e.owner == name))
            for name, m in present.items()
        }
        plan = advance(after, told, loads or {}) if leaving else after
    raise AssertionError("the plan never comes to rest")


def shares(plan: Plan, loads: dict[int, float], *names: str) -> list[float]:
    return [sum(loads.get(p, 0.0) for p in plan.owned(name)) for name in names]


@settings(max_examples=12)
@given(st.integers(1, 12))
def test_partitions_are_spread_evenly(count: int) -> None:
    """Of 64 partitions, no member has two more than another."""
    names = NAMES[:count]
    plan, moves = settled(Plan.empty(64), members(*names))
    held = [len(plan.owned(name)) for name in names]
    assert sum(held) == 64
    assert max(held) - min(held) <= 1
    assert moves == 0


@settings(max_examples=40)
@given(LOADS, st.integers(2, 12))
def test_busiest_member_is_near_the_mean_where_it_can_be(loads: dict[int, float], count: int) -> None:
    """At most 1.25 of the mean in streams, or the mean and one partition; idle partitions likewise."""
    names = NAMES[:count]
    plan, _ = settled(Plan.empty(64), members(*names), loads)
    idle = {p: 1.0 for p in range(64) if loads.get(p, 0.0) < 0.01}
    for weights in (loads, idle):
        carried = shares(plan, weights, *names)
        mean = sum(carried) / count
        assert max(carried) <= max(1.25 * mean, mean + max(weights.values(), default=0.0)) + 1e-9


@settings(max_examples=40)
@given(st.lists(st.floats(0.5, 2.0), min_size=64, max_size=64), st.integers(1, 7))
def test_joining_member_gets_its_share_and_nobody_else_anything(each: list[float], count: int) -> None:
    """A join moves partitions to the one that joins only, and no more than its fair share of the weight."""
    names, loads = NAMES[:count], dict(enumerate(each))
    before, _ = settled(Plan.empty(64), members(*names), loads)
    after, moves = settled(before, members(*NAMES[: count + 1]), loads)
    changed = [p for p in range(64) if before.partitions[p].owner != after.partitions[p].owner]
    assert moves <= len(changed) + 2
    assert sum(after.partitions[p].owner != NAMES[count] for p in changed) <= 2  # the last step to even
    assert sum(each[p] for p in changed) <= sum(each) / (count + 1) + 2 * max(each)


@settings(max_examples=40)
@given(LOADS, st.integers(1, 11))
def test_join_among_heavy_partitions_comes_to_rest(loads: dict[int, float], count: int) -> None:
    """Few streams of any weight: the fleet stops moving, and every partition has an owner."""
    before, _ = settled(Plan.empty(64), members(*NAMES[:count]), loads)
    after, _ = settled(before, members(*NAMES[: count + 1]), loads)
    assert all(entry.owner in NAMES[: count + 1] for entry in after.partitions)


@settings(max_examples=40)
@given(LOADS, st.integers(2, 12), st.integers(0, 11))
def test_death_moves_the_dead_members_partitions_only(loads: dict[int, float], count: int, which: int) -> None:
    """What others own stays where it is, unless single heavy partitions make the fleet uneven."""
    names = NAMES[:count]
    dead = names[which % count]
    before, _ = settled(Plan.empty(64), members(*names), loads)
    left = {name: m for name, m in members(*names).items() if name != dead}
    after = advance(before, left, loads, balance=False)
    for p in range(64):
        if before.partitions[p].owner != dead:
            assert after.partitions[p] == before.partitions[p]
        else:
            assert after.partitions[p].owner in left
            assert not after.partitions[p].clean
            assert after.partitions[p].epoch == before.partitions[p].epoch + 1


def test_shares_follow_the_capacities() -> None:
    """A member with three times the capacity gets three times the partitions."""
    present = {"a=1": Member(id="a=1", capacity=30.0), "b=1": Member(id="b=1", capacity=10.0)}
    plan, _ = settled(Plan.empty(64), present)
    assert len(plan.owned("a=1")) == 48


def test_draining_member_ends_up_with_nothing() -> None:
    """It owns its partitions until it has released each of them; then others do, in order."""
    before, _ = settled(Plan.empty(64), members(*NAMES[:3]))
    present = members(*NAMES[:3])
    present[NAMES[0]] = replace(present[NAMES[0]], draining=True)
    under_way = advance(before, present, {})
    assert under_way.owned(NAMES[0]) == before.owned(NAMES[0])
    after, _ = settled(before, present)
    assert after.owned(NAMES[0]) == []
    assert all(entry.clean for entry in after.partitions)


def test_few_streams_are_shared_with_the_member_that_joins() -> None:
    """Six streams in 64 partitions: three for each, and half of the idle partitions."""
    loads = dict.fromkeys((3, 9, 20, 31, 48, 60), 1.0)
    before, _ = settled(Plan.empty(64), members(*NAMES[:1]), loads)
    after, moves = settled(before, members(*NAMES[:2]), loads)
    assert shares(after, loads, *NAMES[:2]) == [3.0, 3.0]
    assert moves in {31, 32}


def test_hot_partition_leaves_its_owner_with_less_else() -> None:
    """One partition as heavy as half of all others: its owner keeps it and gives others away."""
    before, _ = settled(Plan.empty(64), members(*NAMES[:4]), dict.fromkeys(range(64), 1.0))
    loads = dict.fromkeys(range(64), 1.0) | {0: 16.0}
    after, moves = settled(before, members(*NAMES[:4]), loads)
    carried = shares(after, loads, *NAMES[:4])
    assert max(carried) <= 1.25 * sum(carried) / 4
    assert 0 < moves <= 16


def test_even_fleet_is_left_alone() -> None:
    """The plan is the same object: nobody writes it again."""
    plan, _ = settled(Plan.empty(64), members(*NAMES[:4]))
    assert advance(plan, members(*NAMES[:4]), {}) is plan


def test_heir_that_dies_before_the_hand_over_is_replaced() -> None:
    """The owner has released by then; the partition goes to a member that is there."""
    plan = Plan((Ownership("a=1", 3, "b=1"),))
    present = {"a=1": Member(id="a=1", released=frozenset({(0, 3)})), "c=1": Member(id="c=1", capacity=5.0)}
    entry = advance(plan, present, {}).partitions[0]
    assert (entry.owner, entry.epoch, entry.to, entry.clean) == ("c=1", 4, None, True)


def test_release_of_an_earlier_epoch_does_not_count() -> None:
    """A member that got a partition back has not given it up again."""
    plan = Plan((Ownership("a=1", 5),))
    present = {"a=1": Member(id="a=1", released=frozenset({(0, 3)}))}
    assert advance(plan, present, {}) is plan


def test_restarted_member_replaces_its_earlier_run() -> None:
    """Two runs under one name: the later one counts, so the earlier one's partitions are free at once."""
    everybody = {"a=1": Member(id="a=1", since=1.0), "a=2": Member(id="a=2", since=9.0), "b=1": Member(id="b=1")}
    assert set(present(everybody)) == {"a=2", "b=1"}
    assert coordinator(present(everybody)) == "b=1"
    assert coordinator({}) is None
