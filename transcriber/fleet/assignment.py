"""Gives each member its fair share of the partitions, by weight over capacity, and moves as few as possible. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median_low

_UNEVEN = 1.15  # a member so many times busier than the mean is relieved; 1.25 is promised
_EVEN = 1.05  # moving stops there

_LEAST = 0.01  # streams, as members round what they tell; a partition with less is idle
# Machines of one kind differ so much in what they measure at start, when they start together. Their shares are equal.
_ALIKE = 1.5


def comparable(capacities: Mapping[str, float]) -> dict[str, float]:
    """The capacities without the noise in them: those near the median count as the median."""
    if not capacities:
        return {}
    middle = median_low(capacities.values())
    return {
        member: middle if middle / _ALIKE <= capacity <= middle * _ALIKE else capacity
        for member, capacity in capacities.items()
    }


class _Shares:
    """The weight that each member carries of some partitions, and how busy that makes it."""

    def __init__(
        self, owners: Mapping[int, str | None], weights: Mapping[int, float], capacities: Mapping[str, float]
    ) -> None:
        self.weights = weights
        self.capacities = {member: max(capacity, 1e-6) for member, capacity in capacities.items()}
        self.held: dict[str, set[int]] = {member: set() for member in capacities}
        self.carried = dict.fromkeys(capacities, 0.0)
        self.mean = sum(weights.values()) / sum(self.capacities.values())
        for partition, owner in owners.items():
            if owner in self.held:
                self.add(partition, owner)

    def add(self, partition: int, member: str) -> None:
        self.held[member].add(partition)
        self.carried[member] += self.weights[partition]

    def remove(self, partition: int, member: str) -> None:
        self.held[member].remove(partition)
        self.carried[member] -= self.weights[partition]

    def busy(self, member: str, more: float = 0.0) -> float:
        """How busy a member is, or would be with `more` weight, as a multiple of the mean."""
        return (self.carried[member] + more) / self.capacities[member] / self.mean

    def spare(self, member: str) -> float:
        """The weight that a member lacks to the mean; negative above it."""
        return self.mean * self.capacities[member] - self.carried[member]

    def busiest(self) -> str:
        return max(self.held, key=lambda m: (self.busy(m), m))

    def idlest(self) -> str:
        return min(self.held, key=lambda m: (self.busy(m), m))


def _kinds(
    owners: Sequence[str | None], loads: Mapping[int, float], capacities: Mapping[str, float]
) -> Iterator[tuple[dict[int, str | None], _Shares]]:
    """Yield partitions at work, by their streams, and then idle ones, by their number: each kind is spread evenly.

    Idle partitions are for the streams that come. If both had one weight, a member could get all of one kind.
    """
    for weights in (
        {p: load for p in range(len(owners)) if (load := loads.get(p, 0.0)) >= _LEAST},
        {p: 1.0 for p in range(len(owners)) if loads.get(p, 0.0) < _LEAST},
    ):
        if weights:
            mine = {p: owners[p] for p in weights}
            yield mine, _Shares(mine, weights, capacities)


def give_out(
    owners: Sequence[str | None], loads: Mapping[int, float], capacities: Mapping[str, float]
) -> dict[int, str]:
    """Return an owner for each partition whose owner is none of the members in `capacities`. Others stay.

    The heaviest goes first, each to the member that is least busy with it.
    """
    given: dict[int, str] = {}
    for mine, shares in _kinds(owners, loads, capacities):
        free = [p for p, owner in mine.items() if owner not in shares.held]
        for partition in sorted(free, key=lambda p: (-shares.weights[p], p)):
            weight = shares.weights[partition]
            member = min(shares.held, key=lambda m: (shares.busy(m, weight), m))
            shares.add(partition, member)
            given[partition] = member
    return given


def moves(owners: Sequence[str | None], loads: Mapping[int, float], capacities: Mapping[str, float]) -> dict[int, str]:
    """Return the partitions to move, each with its new owner. None while the fleet is even enough.

    Each step takes from the busiest member and gives to the idlest. It prefers the heaviest partition that leaves
    neither on the other side of the mean. Else it takes the one that makes the busier of the two least busy. So a
    member that joins gets its share and nobody else gets anything, and no partition moves twice.
    """
    moved: dict[int, str] = {}
    for _, shares in _kinds(owners, loads, capacities):
        if shares.busy(shares.busiest()) <= _UNEVEN and shares.busy(shares.idlest()) >= 2 - _UNEVEN:
            continue
        while (step := _step(shares, moved)) is not None:
            partition, giver, taker = step
            shares.remove(partition, giver)
            shares.add(partition, taker)
            moved[partition] = taker
    return moved


def _step(shares: _Shares, moved: Mapping[int, str]) -> tuple[int, str, str] | None:
    """The next partition to move, from whom and to whom; None when it would not help."""
    giver, taker = shares.busiest(), shares.idlest()
    before = shares.busy(giver)
    if before <= _EVEN and shares.busy(taker) >= 2 - _EVEN:
        return None

    def after(partition: int) -> float:
        weight = shares.weights[partition]
        return max(shares.busy(giver, -weight), shares.busy(taker, weight))

    left = [p for p in shares.held[giver] if p not in moved]
    fitting = [p for p in left if shares.weights[p] <= min(shares.spare(taker), -shares.spare(giver))]
    if fitting:
        return max(fitting, key=lambda p: (shares.weights[p], -p)), giver, taker
    best = min(left, key=lambda p: (after(p), p), default=None)
    if best is None or after(best) >= before - 1e-9:
        return None
    return best, giver, taker
