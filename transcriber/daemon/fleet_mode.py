"""A daemon as a member of a fleet: it works on the partitions that the plan gives to it."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from transcriber.broker.fleet import FleetStore
from transcriber.daemon.fleet_live import LiveShares
from transcriber.daemon.fleet_shares import DurableShares
from transcriber.daemon.shutdown import within
from transcriber.daemon.status import SessionGroup
from transcriber.domain.measurements import FleetFigures
from transcriber.fleet import admission
from transcriber.fleet.membership import Membership
from transcriber.fleet.plan import Plan
from transcriber.fleet.roster import without_owner
from transcriber.fleet.view import view
from transcriber.protocol.partitions import FleetOptions, member_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from transcriber.daemon.running import Running
    from transcriber.daemon.state import Grace, State
    from transcriber.domain.events import ConsumerLag
    from transcriber.domain.measurements import Tallies
    from transcriber.settings import Settings

_ANSWER_SECS = 0.25  # time to send the refusals of requests
_FIRST_SECS = 10.0  # for the first plan and its work: those of dead members run out first
_LEAVE_SECS = 1.0  # to delete our entry; it runs out by itself


class FleetMode:
    """Audio of the partitions that this member owns."""

    def __init__(self, settings: Settings, fleet: FleetOptions, tallies: Tallies) -> None:
        self._settings = settings
        self._fleet = fleet
        self.sessions = SessionGroup(settings.sessions, tallies)
        self._running: Running | None = None
        self._holder: DurableShares | LiveShares | None = None
        self._membership: Membership | None = None
        self._taking_part: asyncio.Task[None] | None = None

    @property
    def longest_wait(self) -> float:
        return math.inf if self._settings.durable else self._settings.max_latency

    @property
    def lag(self) -> ConsumerLag | None:
        return self._holder.lag if self._holder is not None else None

    @property
    def fleet(self) -> FleetFigures:
        """The fleet as this member sees it."""
        membership = self._membership
        if membership is None:
            return FleetFigures()
        members = membership.roster.members
        room = admission.room(members.values())
        return FleetFigures(
            members=len(members),
            partitions=membership.working,
            without_owner=len(without_owner(membership.plan, members)),
            moves=membership.begun,
            load=room.load,
            capacity=room.capacity,
        )

    def fleet_view(self) -> dict[str, Any]:
        """The fleet as this member sees it, in the form of `transcriber fleet status --json`."""
        membership, name = self._membership, {"fleet": self._fleet.name}
        if membership is None:
            return name | view(Plan.empty(self._fleet.partitions, live=not self._settings.durable), {})
        return name | view(membership.plan, membership.roster.members)

    async def start(self, running: Running, enter: Callable[[State], None]) -> set[asyncio.Future[None]]:  # noqa: ARG002 - a member has no state of its own
        """Join the fleet, take requests, and work on what the first plan gives to us. More may come later."""
        self._running = running
        store = FleetStore(running.connection, self._fleet.name)
        self._holder = holder = self._shares(running, store)
        self._membership = membership = Membership(store, self._id(), self._fleet.partitions, holder)
        holder.valid = lambda: membership.valid
        if isinstance(holder, DurableShares):
            holder.member = membership.me.id
        running.publisher.allowed = lambda: membership.valid
        self.sessions.refuse = self._refusal
        await membership.join()
        await running.requests.start()
        self._taking_part = asyncio.create_task(membership.run())
        settling_in = asyncio.ensure_future(within(_FIRST_SECS, membership.settled_in()))
        await asyncio.wait({self._taking_part, settling_in}, return_when=asyncio.FIRST_COMPLETED)
        return {self._taking_part, holder.failed}

    def _shares(self, running: Running, store: FleetStore) -> DurableShares | LiveShares:
        if self._settings.durable:
            return DurableShares(running, self._settings, self._fleet, self.sessions)
        return LiveShares(running, self._settings, store, self.sessions)

    def _refusal(self) -> str | None:
        """Why a stream that begins now must be refused. Stored audio waits instead."""
        if self.sessions.active >= (most := self._settings.sessions.max_streams):
            return f"MAX_STREAMS={most} streams are open already"
        if self._settings.durable or self._membership is None:
            return None
        return admission.refusal(self._membership.me, self._membership.roster.members.values())

    async def end_input(self, grace: Grace) -> None:
        """Give the partitions to the other members if there are any, then take no more audio."""
        if self._running is None:
            return
        await within(min(_LEAVE_SECS, grace.left), self._running.requests.stop())
        if self._taking_part is not None and self._membership is not None and not self._taking_part.done():
            self._membership.drain()
            await within(grace.left / 2, self._membership.given_up())
        if self._holder is not None:
            await self._holder.end_input(grace)
        self._running.queue.close()

    async def settle(self, grace: Grace) -> None:
        """Let the worker finish the queue and store or publish the results; leave the fleet."""
        if self._running is not None and self._holder is not None:
            await within(grace.left, self._running.worker.finished.wait())
            await self._holder.settle(grace)
            await within(_ANSWER_SECS, self._running.requests.give_up())
        if self._taking_part is not None:
            self._taking_part.cancel()
        if self._membership is not None:
            await within(_LEAVE_SECS, self._membership.leave())

    def _id(self) -> str:
        """Return an id: a name that is the same after a restart, and a part that is not."""
        port = self._settings.health.port
        name = member_name(socket.gethostname(), port or time.monotonic_ns() % 10**9)
        return f"{name}={uuid4().hex[:8]}"
