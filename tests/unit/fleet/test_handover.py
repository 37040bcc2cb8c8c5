"""Hand-overs between members that read the plan late and die at any moment: never two owners at a time."""

from __future__ import annotations

import random

import pytest

from transcriber.fleet.handover import Holding, Phase, Step, steps
from transcriber.fleet.plan import Member, Ownership, Plan, advance

PARTITIONS = 8


class Model:
    """Members with views of the plan that lag behind, and leases that run out only after their members have stopped.

    That order is what a member's own clock guarantees: it stops when a lease has passed since it last asked for a
    renewal, and the server lets the entry run out a lease after it got that request.
    """

    def __init__(self, seed: int, *, live: bool) -> None:
        self.r = random.Random(seed)
        self.live = live
        self.restless = True  # loads change all the time
        self.plan = Plan.empty(PARTITIONS)
        self.leases: dict[str, Member] = {}
        self.views: dict[str, Plan] = {}
        self.held: dict[str, dict[int, Holding]] = {}
        self.running: set[str] = set()
        self.born = 0

    def join(self) -> None:
        name = f"m{self.born}=1"
        self.leases[name] = Member(id=name, since=float(self.born))
        self.views[name], self.held[name] = self.plan, {}
        self.running.add(name)
        self.born += 1

    def stop(self) -> None:
        """A member dies, or notices that its lease may have run out."""
        if len(self.running) > 1:
            name = self.r.choice(sorted(self.running))
            self.running.remove(name)

    def expire(self) -> None:
        for name in [n for n in self.leases if n not in self.running][:1]:
            del self.leases[name]

    def drain(self) -> None:
        name = self.r.choice(sorted(self.running))
        self.tell(name, draining=not self.leases[name].draining)

    def tell(self, name: str, **changes: object) -> None:
        old = self.leases[name]
        fields = {k: getattr(old, k) for k in ("id", "since", "draining", "released", "prepared")}
        self.leases[name] = Member(**(fields | changes))

    def advance(self) -> None:
        loads = {p: self.r.random() for p in range(PARTITIONS)} if self.restless else {}
        self.plan = advance(self.plan, self.leases, loads)

    def read(self) -> None:
        name = self.r.choice(sorted(self.running))
        self.views[name] = self.plan

    def act(self) -> None:
        name = self.r.choice(sorted(self.running))
        held = self.held[name]
        prepared = {term for m in self.leases.values() for term in m.prepared}
        for step, p, entry in steps(
            name, self.views[name], dict(held), lambda p, e: not self.live or (p, e) in prepared, prepares=self.live
        ):
            match step:
                case Step.START:
                    held[p] = Holding(Phase.WORKING, entry.epoch)
                case Step.PREPARE:
                    held[p] = Holding(Phase.PREPARING, entry.epoch)
                case Step.DRAIN:
                    held[p] = Holding(Phase.DRAINING, entry.epoch)
                case Step.ABANDON | Step.FORGET:
                    del held[p]
        self.publish(name)

    def settle(self) -> None:
        """A draining partition is done."""
        name = self.r.choice(sorted(self.running))
        for p, holding in self.held[name].items():
            if holding.phase is Phase.DRAINING:
                self.held[name][p] = Holding(Phase.RELEASED, holding.epoch)
                break
        self.publish(name)

    def publish(self, name: str) -> None:
        terms = {
            phase: frozenset((p, h.epoch) for p, h in self.held[name].items() if h.phase is phase) for phase in Phase
        }
        self.tell(name, released=terms[Phase.RELEASED], prepared=terms[Phase.PREPARING])

    def owners(self, partition: int) -> list[str]:
        """The running members that may write results of the partition."""
        at_work = (Phase.WORKING, Phase.DRAINING)
        return [n for n in self.running if (h := self.held[n].get(partition)) is not None and h.phase in at_work]


@pytest.mark.parametrize("live", [False, True], ids=["durable", "live"])
def test_partition_never_has_two_owners(live: bool) -> None:
    """60 random histories of 300 events: joins, deaths, drains, late plans, hand-overs that stop in the middle."""
    handed = 0
    for seed in range(60):
        model = Model(seed, live=live)
        model.join()
        events = [
            model.join,
            model.stop,
            model.expire,
            model.drain,
            *[model.advance, model.read, model.act, model.settle] * 6,
        ]
        for _ in range(300):
            before = model.plan
            event = model.r.choice(events)
            if event is not model.join or len(model.running) < 6:
                event()
            for p in range(PARTITIONS):
                assert len(model.owners(p)) <= 1, (seed, p)
            handed += sum(
                new.clean and new.owner != old.owner and old.owner is not None
                for new, old in zip(model.plan.partitions, before.partitions, strict=True)
            )
    assert handed > 100  # orderly hand-overs did happen


@pytest.mark.parametrize("live", [False, True], ids=["durable", "live"])
def test_fleet_comes_to_rest_after_any_history(live: bool) -> None:
    """Once nothing happens any more, every partition has one owner that works."""
    for seed in range(12):
        model = Model(seed, live=live)
        model.join()
        for _ in range(200):
            event = model.r.choice([model.join, model.stop, model.advance, model.read, model.act, model.settle])
            if event is not model.join or len(model.running) < 4:
                event()
        while len(model.leases) > len(model.running):
            model.expire()
        for name in model.running:
            model.tell(name, draining=False)
        model.restless = False
        for _ in range(2000):
            model.r.choice([model.advance, model.read, model.act, model.settle])()
        assert all(len(model.owners(p)) == 1 for p in range(PARTITIONS)), seed


def only(plan: Ownership, holding: Holding | None, *, prepares: bool = False, ready: bool = True) -> Step | None:
    held = {} if holding is None else {0: holding}
    return next((s for s, _, _ in steps("a=1", Plan((plan,)), held, lambda _p, _e: ready, prepares=prepares)), None)


@pytest.mark.parametrize(
    ("entry", "holding", "step"),
    [
        (Ownership("a=1", 2), None, Step.START),
        (Ownership("a=1", 2), Holding(Phase.WORKING, 2), None),
        (Ownership("a=1", 2, to="b=1"), Holding(Phase.WORKING, 2), Step.DRAIN),
        (Ownership("a=1", 2), Holding(Phase.DRAINING, 2), None),
        (Ownership("a=1", 4), Holding(Phase.WORKING, 2), Step.ABANDON),
        (Ownership("a=1", 4), Holding(Phase.RELEASED, 2), Step.FORGET),
        (Ownership("b=1", 3), Holding(Phase.WORKING, 2), Step.ABANDON),
        (Ownership("b=1", 3), Holding(Phase.RELEASED, 2), Step.FORGET),
        (Ownership("b=1", 3), None, None),
        (Ownership("b=1", 3, to="a=1"), None, None),
    ],
)
def test_durable_step_follows_the_plan(entry: Ownership, holding: Holding | None, step: Step | None) -> None:
    """What a member does with a partition, by the plan's entry and what it holds."""
    assert only(entry, holding) is step


def test_live_owner_drains_once_the_next_one_listens() -> None:
    """Until then it goes on: nothing that is sent meanwhile may be lost."""
    entry = Ownership("a=1", 2, to="b=1")
    assert only(entry, Holding(Phase.WORKING, 2), prepares=True, ready=False) is None
    assert only(entry, Holding(Phase.WORKING, 2), prepares=True) is Step.DRAIN


def test_live_heir_listens_then_starts_or_forgets() -> None:
    """It prepares when it is named, starts when it owns, and stops listening when another one is named."""
    listening = Holding(Phase.PREPARING, 3)
    assert only(Ownership("b=1", 3, to="a=1"), None, prepares=True) is Step.PREPARE
    assert only(Ownership("b=1", 3, to="a=1"), listening, prepares=True) is None
    assert only(Ownership("a=1", 4), listening, prepares=True) is Step.START
    assert only(Ownership("b=1", 3, to="c=1"), listening, prepares=True) is Step.FORGET
