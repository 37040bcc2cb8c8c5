"""Simulates a fleet on a virtual clock, with the daemon's own functions for plans, hand-overs and admission."""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass, field, replace

from benchmarks.report import Report, table
from transcriber.fleet import admission
from transcriber.fleet.handover import Holding, Phase, Step, steps
from transcriber.fleet.plan import Member, Plan, coordinator
from transcriber.fleet.roster import PLAN_SECS, RENEW_SECS, Roster
from transcriber.protocol.partitions import LEASE_SECS, partition_of

_STEP = 0.05  # virtual seconds; every message takes as much, many times what it takes on a working server
_SETTLE_SECS = (0.1, 1.0)  # an owner decodes its last windows; meanwhile the next one keeps what comes
_RESTART_SECS = 30.0  # until a dead daemon is replaced: a pod starts, and a model is loaded and measured
_STREAM_SECS = 600.0  # mean life of a stream; another one begins when it ends
_HOT = (0.005, 5.0)  # share of the streams that send so many times faster than real time
_BUSY = 0.7  # share of a daemon's capacity that the fleet has streams for
_SECOND = round(1 / _STEP)

MEASURED = {
    "simulated": "plans, hand-overs and admission are the daemon's own; daemons, NATS and streams are not real",
    "without owner": "from a daemon's death until another one works on its partitions",
    "in time": "audio of accepted streams that had an owner with capacity for it, over all audio of accepted streams",
    "moved at once": "streams that one round of moves gives to one daemon, over its fair share of all streams",
    "evenness": "busiest daemon over the mean, in streams at work, sampled each second while nobody is missing",
}


@dataclass
class _Daemon:
    """One simulated daemon: what it holds, what it last said, and its view of the plan."""

    id: str
    member: Member
    plan: Plan
    renews: float
    held: dict[int, Holding] = field(default_factory=dict)
    settled: dict[int, float] = field(default_factory=dict)  # when a draining partition will be


@dataclass
class _Figures:
    deaths: int = 0
    joins: int = 0
    gaps: list[float] = field(default_factory=list)
    moves: int = 0
    refused: int = 0
    begun: int = 0
    audio: float = 0.0
    ownerless: float = 0.0
    crowded: float = 0.0
    evenness: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What to simulate, for so many virtual minutes. `dying`: the share of the daemons that dies each minute."""

    daemons: int
    streams: int
    partitions: int
    minutes: float
    dying: float
    seed: int


class _Fleet:
    """The simulated fleet, stream by stream and step by step."""

    def __init__(self, scene: Scene) -> None:
        partitions, streams, daemons = scene.partitions, scene.streams, scene.daemons
        self.r = random.Random(scene.seed)  # noqa: S311 - a simulation
        self.now = 0.0
        self.partitions, self.dying = partitions, 0.0
        hot_share, hot_load = _HOT
        self.capacity = streams * (1 + hot_share * (hot_load - 1)) / daemons / _BUSY
        self.plan = Plan.empty(partitions)
        self.moving = False  # whether partitions are to change hands
        self.entries: dict[str, tuple[Member, float]] = {}  # the bucket: an entry, and when it runs out
        self.daemons: dict[str, _Daemon] = {}
        self.roster = Roster(0.0)  # the coordinator's
        self.loads: dict[int, float] = dict.fromkeys(range(partitions), 0.0)
        self.streams: list[tuple[float, int, float]] = []  # when it ends, partition, load
        self.orphans: dict[int, float] = {}
        self.replacements: list[float] = []
        self.born = 0
        self.figures = _Figures()
        for _ in range(daemons):
            self.join()
        self.wanted = streams

    def join(self) -> None:
        one = f"d{self.born}=1"
        self.born += 1
        member = Member(id=one, since=self.now, capacity=self.capacity)
        self.daemons[one] = _Daemon(one, member, self.plan, self.now + self.r.uniform(0, RENEW_SECS))
        self.say(self.daemons[one])
        self.figures.joins += 1

    def say(self, daemon: _Daemon) -> None:
        """Renew a daemon's entry: what it carries, has released and listens to."""
        held = daemon.held.items()
        working = [p for p, h in held if h.phase in (Phase.WORKING, Phase.DRAINING)]
        released, prepared = (
            frozenset((p, h.epoch) for p, h in held if h.phase is phase) for phase in (Phase.RELEASED, Phase.PREPARING)
        )
        loads = {p: self.loads[p] for p in working}
        daemon.member = replace(daemon.member, loads=loads, released=released, prepared=prepared)
        self.entries[daemon.id] = daemon.member, self.now + LEASE_SECS
        self.roster.heard(daemon.member, self.now)

    def die(self) -> None:
        one = self.r.choice(sorted(self.daemons))
        for p, holding in self.daemons.pop(one).held.items():
            if holding.phase in (Phase.WORKING, Phase.DRAINING):
                self.orphans[p] = self.now
        self.replacements.append(self.now + _RESTART_SECS)
        self.figures.deaths += 1

    def step(self) -> None:
        """Let a moment pass."""
        self.now += _STEP
        if self.r.random() < len(self.daemons) * self.dying / 60 * _STEP:
            self.die()
        for due in [d for d in self.replacements if d <= self.now]:
            self.replacements.remove(due)
            self.join()
        for one in [one for one, (_, end) in self.entries.items() if end <= self.now]:
            del self.entries[one]
        for daemon in self.daemons.values():
            if daemon.renews <= self.now:
                daemon.renews += RENEW_SECS
                self.say(daemon)
            self.act(daemon)
        self.account()

    def coordinate(self) -> None:
        """What the coordinator does a few times a second."""
        for one in self.roster.overdue(self.now):
            if one not in self.entries:
                self.roster.gone(one, self.now)
        if coordinator(self.roster.members) in self.daemons:  # a dead one makes no plan until it is missed
            after = self.roster.next_plan(self.plan, self.now)
            self.figures.shares += self.shares(after)
            self.figures.moves += sum(
                new.clean and old.owner is not None and new.owner != old.owner
                for new, old in zip(after.partitions, self.plan.partitions, strict=True)
            )
            self.plan = after
            self.moving = any(entry.to is not None for entry in after.partitions)

    def shares(self, after: Plan) -> list[float]:
        """What each daemon is to get in this round of moves, in streams, over its fair share of all streams."""
        given: dict[str, float] = {}
        for p, (new, old) in enumerate(zip(after.partitions, self.plan.partitions, strict=True)):
            if new.to is not None and old.to is None:
                given[new.to] = given.get(new.to, 0.0) + self.loads[p]
        fair = sum(self.loads.values()) / max(len(self.roster.members), 1)
        return [streams / fair for streams in given.values() if fair > 0]

    def act(self, daemon: _Daemon) -> None:
        due = [p for p, end in daemon.settled.items() if end <= self.now]
        for p in due:
            del daemon.settled[p]
            daemon.held[p] = Holding(Phase.RELEASED, daemon.held[p].epoch)
        if daemon.plan is self.plan and not due and not self.moving:
            return
        prepared = self.roster.prepared() if self.moving else set()
        before = dict(daemon.held)
        for step, p, entry in steps(daemon.id, self.plan, before, lambda p, e: (p, e) in prepared, prepares=True):
            self._do(daemon, step, p, entry.epoch)
        daemon.plan = self.plan
        if due or before != daemon.held:
            self.say(daemon)

    def _do(self, daemon: _Daemon, step: Step, partition: int, epoch: int) -> None:
        match step:
            case Step.START:
                daemon.held[partition] = Holding(Phase.WORKING, epoch)
                if (since := self.orphans.pop(partition, None)) is not None:
                    self.figures.gaps.append(self.now - since)
            case Step.PREPARE:
                daemon.held[partition] = Holding(Phase.PREPARING, epoch)
            case Step.DRAIN:
                daemon.held[partition] = Holding(Phase.DRAINING, epoch)
                daemon.settled[partition] = self.now + self.r.uniform(*_SETTLE_SECS)
            case Step.ABANDON | Step.FORGET:
                del daemon.held[partition]
                daemon.settled.pop(partition, None)

    def churn(self) -> None:
        """End streams whose time has come, and begin others in their place, if the fleet takes them."""
        left = []
        for end, p, load in self.streams:
            if end <= self.now:
                self.loads[p] -= load
            else:
                left.append((end, p, load))
        self.streams = left
        members = list(self.roster.members.values())
        owners = {p: member for member in members for p in member.loads}
        while len(self.streams) < self.wanted:
            self.figures.begun += 1
            p = partition_of(f"stream-{self.figures.begun}", self.partitions)
            own = owners.get(p)
            if own is not None and admission.refusal(own, members) is not None:
                self.figures.refused += 1
                break  # it will be tried again in the next second
            load = _HOT[1] if self.r.random() < _HOT[0] else 1.0
            life = self.r.expovariate(1 / _STREAM_SECS) if self.now > _STEP else self.r.uniform(0, 2 * _STREAM_SECS)
            self.streams.append((self.now + life, p, load))
            self.loads[p] += load

    def account(self) -> None:
        """Count the audio of this moment: with an owner that has capacity for it, or not."""
        figures = self.figures
        figures.audio += sum(self.loads.values()) * _STEP
        figures.ownerless += sum(self.loads[p] for p in self.orphans) * _STEP
        carried = self.carried()
        # An owner can do all of its capacity; the plan counts on 70 % of it.
        figures.crowded += sum(max(0.0, load - self.capacity / _BUSY) for load in carried) * _STEP

    def carried(self) -> list[float]:
        return [
            sum(self.loads[p] for p, h in d.held.items() if h.phase in (Phase.WORKING, Phase.DRAINING))
            for d in self.daemons.values()
        ]

    def sample(self) -> None:
        carried = self.carried()
        if not self.orphans and not self.replacements:
            self.figures.evenness.append(max(carried) * len(carried) / max(sum(carried), 1e-9))


def simulate(scene: Scene) -> _Figures:
    """Let the fleet run, and count."""
    fleet = _Fleet(scene)
    warm, count = 30 * _SECOND, round(scene.minutes * 60) * _SECOND
    planning = round(PLAN_SECS / _STEP)
    for tick in range(warm + count):
        if tick == warm:
            fleet.figures, fleet.dying = _Figures(), scene.dying
        if tick % _SECOND == 0:
            fleet.churn()
            fleet.sample()
        if tick % planning == 0:
            fleet.coordinate()
        fleet.step()
    return fleet.figures


async def run(options: argparse.Namespace) -> Report:
    """Simulate, and report."""
    chosen = {name: getattr(options, name) for name in ("daemons", "streams", "partitions", "minutes", "dying", "seed")}
    found = simulate(Scene(**chosen))
    lost = found.ownerless + found.crowded
    gaps = sorted(found.gaps) or [0.0]
    even = sorted(found.evenness) or [1.0]
    figures = {
        "deaths": found.deaths,
        "joins": found.joins,
        "planned moves": found.moves,
        "without owner, mean": f"{sum(gaps) / len(gaps):.2f} s",
        "without owner, longest": f"{gaps[-1]:.2f} s",
        "busiest over mean, median": f"{even[len(even) // 2]:.3f}",
        "busiest over mean, p99": f"{even[int(0.99 * (len(even) - 1))]:.3f}",
        "moved at once, most": f"{max(found.shares, default=0.0):.2f} of a fair share",
        "streams begun, refused": f"{found.begun}, {found.refused}",
        "audio": f"{found.audio / 3600:.0f} h",
        "in time": f"{1 - lost / found.audio:.4%}",
        "without owner": f"{found.ownerless / found.audio:.4%}",
        "beyond capacity": f"{found.crowded / found.audio:.4%}",
    }
    report = Report(benchmark="fleet", settings=chosen, measured=MEASURED, figures=dict(figures))
    report.ratios["in time"] = 1 - lost / found.audio
    report.tables.append(table(["simulated", ""], [[name, str(value)] for name, value in figures.items()]))
    return report
