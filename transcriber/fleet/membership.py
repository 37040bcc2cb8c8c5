"""A member's life in its fleet: it renews its lease, makes the plans when that is its turn, and does what they say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from transcriber.broker.patience import AWAY, Backoff
from transcriber.domain.errors import BrokerError, Fenced
from transcriber.fleet.absence import note_absent
from transcriber.fleet.handover import Holding, Phase, Step, steps
from transcriber.fleet.holder import describe
from transcriber.fleet.lease import OwnLease
from transcriber.fleet.plan import Member, Plan, coordinator
from transcriber.fleet.records import decode_member, decode_plan, encode_member, encode_plan
from transcriber.fleet.roster import PLAN_SECS, RENEW_SECS, Roster

if TYPE_CHECKING:
    from transcriber.broker.fleet import FleetStore
    from transcriber.fleet.holder import Holder

log = logging.getLogger(__name__)

_LOOK_SECS = 1.0  # between two looks at the plan, if no message tells of a new one
_LIST_SECS = 10.0  # between two looks at all members, in case a message was lost
_RETRY_SECS = 0.2  # after a renewal that failed
_PATIENCE_SECS = 3.0  # for a next owner that does not listen; by then it is probably dead


class Membership:
    """One member of a fleet. `run` ends with `Fenced` when somebody else owns what we work on."""

    def __init__(self, store: FleetStore, me: str, partitions: int, holder: Holder) -> None:
        self._store = store
        self._holder = holder
        self._partitions = partitions
        self.me = Member(id=me, since=time.time())
        self.plan = Plan.empty(partitions, live=holder.prepares)
        self.begun = 0  # partitions that we have begun to work on
        self._revision = 0
        self.roster = Roster(time.monotonic())
        self._held: dict[int, Holding] = {}
        self._draining: dict[int, asyncio.Task[None]] = {}
        self._waiting: dict[int, float] = {}  # since when a partition waits for its next owner to listen
        self._lease = OwnLease(time.monotonic(), store.connection)
        self._news, self._due, self._moved, self._acted = (asyncio.Event() for _ in range(4))
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # gets a drain's error

    @property
    def valid(self) -> bool:
        """Whether our lease holds, by our own clock, and nobody got what we work on while it may not have held."""
        return self._lease.holds(time.monotonic(), self._store.connection)

    @property
    def working(self) -> int:
        """The number of partitions that we work on."""
        return sum(holding.phase in (Phase.WORKING, Phase.DRAINING) for holding in self._held.values())

    async def join(self) -> None:
        """Enter the fleet: check that it fits us, and say that we are here. Raises `BrokerError`."""
        await self._store.check()
        await self._store.listen(self._on_member, self._news.set)
        await self._store.on_drain(self.me.id, self.drain)
        await self._store.be_present(self.me.id)
        await self._list()
        await self._read_plan()
        await self._renew()
        log.info("joined the fleet", extra={"member": self.me.id, "members": len(self.roster.members)})

    async def run(self) -> None:
        """Renew, plan and follow the plan, for ever. Raises `Fenced`."""
        tasks = [asyncio.create_task(work) for work in (self._keep_lease(), self._make_plans(), self._follow())]
        try:
            await asyncio.gather(self._failed, *tasks)
        finally:
            for task in (*tasks, *self._draining.values()):
                task.cancel()

    async def settled_in(self) -> None:
        """Wait until every partition has an owner, and we work on ours."""

        def wanting(partition: int, owner: str | None) -> bool:
            return owner is None or (owner == self.me.id and partition not in self._held)

        while not self._revision or any(wanting(p, entry.owner) for p, entry in enumerate(self.plan.partitions)):
            self._acted.clear()
            await self._acted.wait()

    def drain(self) -> None:
        """Give up all partitions, and take none."""
        if not self.me.draining:
            log.info("draining: this member gives up its partitions", extra={"member": self.me.id})
        self.me = replace(self.me, draining=True)
        self._due.set()

    async def given_up(self) -> None:
        """Wait until we hold nothing, or nobody is there to take it."""
        while self._held and any(not m.draining for m in self.roster.members.values()):
            self._moved.clear()
            await _within(_LOOK_SECS, self._moved)

    async def leave(self) -> None:
        """Take our entry away, so that others need not wait for the lease to run out."""
        try:
            await self._store.stop_listening()
            await self._store.leave(self.me.id)
        except AWAY as error:
            log.debug("the lease runs out by itself: %s", error)

    async def _keep_lease(self) -> None:
        backoff = Backoff("the fleet's lease")
        while True:
            self._due.clear()  # before, as what changes during a renewal is not in it
            try:
                await self._renew()
                backoff.worked()
            except AWAY as error:
                self.roster.troubled(time.monotonic())
                await backoff.failed(error)
                continue
            await _within(RENEW_SECS, self._due)

    async def _renew(self) -> None:
        if self._lease.doubtful:
            await self._read_plan()
        self.me = describe(self.me, self._holder.figures(), self._held)
        asked, connection = time.monotonic(), self._store.connection
        if self._lease.lapsed(asked, connection) or connection != self._lease.connection:
            self.roster.troubled(asked)
        self._lease.ask(asked, connection)
        await self._store.renew(self.me.id, encode_member(self.me))
        self._lease.answered(asked, connection)
        self.roster.heard(self.me, time.monotonic())
        if not self._lease.verified:
            log.warning("the fleet's lease was not renewed in time; reading the plan")
            await self._read_plan()
            self._check_ours()
            self._lease.verify()

    def _check_ours(self) -> None:
        """Raise `Fenced` if somebody else owns a partition that we work on."""
        for step, partition, entry in steps(
            self.me.id, self.plan, self._held, lambda _p, _e: False, prepares=self._holder.prepares
        ):
            if step is Step.ABANDON:
                self._lease.void()
                raise Fenced(
                    f"partition {partition} of the fleet", f"it belongs to {entry.owner} now, in epoch {entry.epoch}"
                )

    async def _make_plans(self) -> None:
        backoff, listed = Backoff("the fleet's plan"), time.monotonic()
        while True:
            await asyncio.sleep(PLAN_SECS)
            try:
                if time.monotonic() - listed >= _LIST_SECS:
                    await self._list()
                    listed = time.monotonic()
                await note_absent(self.roster, self._store, self.me.id, valid=self.valid)
                if coordinator(self.roster.members) == self.me.id and self.valid:
                    await self._advance()
                backoff.worked()
            except AWAY as error:
                await backoff.failed(error)

    async def _advance(self) -> None:
        """Make the next plan and write it; if somebody else has written one, read that."""
        after = self.roster.next_plan(self.plan, time.monotonic())
        if after is self.plan and self._revision:
            return
        written = await self._store.write_plan(encode_plan(after), self._revision)
        if written is None:
            await self._read_plan()
            return
        self.plan, self._revision = after, written
        self._news.set()

    async def _read_plan(self) -> None:
        payload, revision = await self._store.plan()
        if payload is None or revision == self._revision:
            self._revision = revision
            return
        plan = decode_plan(payload)
        if len(plan.partitions) != self._partitions or plan.live != self._holder.prepares:
            others = [one for one in self.roster.members if one != self.me.id]
            if others:
                mode = "live" if plan.live else "durable"
                raise BrokerError(
                    "the fleet", f"it is {mode} and has {len(plan.partitions)} partitions, unlike this one"
                )
            plan = Plan.empty(self._partitions, live=self._holder.prepares)
        self.plan, self._revision = plan, revision

    async def _list(self) -> None:
        now = time.monotonic()
        for one, payload in (await self._store.members()).items():
            if one not in self.roster.members:
                self._on_member(one, payload, now)

    def _on_member(self, member: str, payload: bytes, now: float | None = None) -> None:
        now = time.monotonic() if now is None else now
        if not payload:
            self.roster.gone(member, now)
        elif member != self.me.id:
            before = self.roster.prepared()
            try:
                self.roster.heard(decode_member(payload), now)
            except ValueError as error:
                log.warning("not a member's entry: %s", error, extra={"member": member, "limited": True})
            if self.roster.prepared() != before:  # an owner may wait for it
                self._news.set()

    async def _follow(self) -> None:
        backoff = Backoff("the fleet's plan")
        while True:
            self._news.clear()  # before, as what is told while we act may have come too late for it
            try:
                await self._read_plan()
                await self._act()
                backoff.worked()
            except AWAY as error:
                await backoff.failed(error)
                continue
            await _within(_LOOK_SECS, self._news)

    async def _act(self) -> None:
        """Do what the plan says. Raises `Fenced` if somebody else owns what we work on."""
        self._check_ours()
        starting: dict[int, tuple[int, bool]] = {}
        before = dict(self._held)
        prepared = self.roster.prepared()
        for step, p, entry in list(
            steps(
                self.me.id, self.plan, before, lambda p, e: self._ready(p, e, prepared), prepares=self._holder.prepares
            )
        ):
            match step:
                case Step.START:
                    starting[p] = entry.epoch, entry.clean
                case Step.PREPARE:
                    await self._holder.prepare(p)
                    self._held[p] = Holding(Phase.PREPARING, entry.epoch)
                case Step.DRAIN:
                    self._held[p] = Holding(Phase.DRAINING, entry.epoch)
                    self._draining[p] = asyncio.create_task(self._drain(p, entry.epoch))
                case _:  # to abandon one was refused above
                    await self._holder.forget(p)
                    del self._held[p]
        if starting and self.valid:
            self._held |= {p: Holding(Phase.WORKING, epoch) for p, (epoch, _) in starting.items()}
            self.begun += len(starting)
            await self._holder.start(starting)
        self._acted.set()
        if before != self._held:
            self._moved.set()
            self._due.set()

    def _ready(self, partition: int, epoch: int, prepared: set[tuple[int, int]]) -> bool:
        """Whether the next owner listens, or has not begun to for so long that we do not wait for it."""
        if not self._holder.prepares or (partition, epoch) in prepared:
            self._waiting.pop(partition, None)
            return True
        since = self._waiting.setdefault(partition, time.monotonic())
        return time.monotonic() - since > _PATIENCE_SECS

    async def _drain(self, partition: int, epoch: int) -> None:
        try:
            await self._holder.drain(partition)
        except Exception as error:  # noqa: BLE001 - any error ends the membership, as in the other tasks
            if not self._failed.done():
                self._failed.set_exception(error)
            return
        self._held[partition] = Holding(Phase.RELEASED, epoch)
        del self._draining[partition]
        self._moved.set()
        self._due.set()


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for the event, but no longer than that."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
