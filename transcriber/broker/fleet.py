"""The fleet's entries in two key-value buckets: members, which run out, and the plan and positions, which stay."""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors

from transcriber.broker.patience import persist
from transcriber.domain.errors import BrokerError
from transcriber.protocol import incoming
from transcriber.protocol.partitions import (
    FLEETS,
    MEMBERS,
    drain_subject,
    member_key,
    plan_key,
    position_key,
    presence_subject,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.js.client import JetStreamContext

    from transcriber.broker.connection import Connection

ANSWER_SECS = 1.0  # a working server answers within milliseconds; a lease must be renewed five times in a row
_PRESENCE_SECS = 0.2  # a member that does not answer meanwhile may be busy; the server tells within milliseconds
_AT_A_TIME = 32  # entries that are read at a time
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_WRONG_LAST = {10071, 10164}  # somebody else has written since
_DELETED = {"KV-Operation": "DEL"}


class FleetStore:
    """Reads and writes the entries of one fleet. Every call raises what JetStream does, so the caller decides."""

    def __init__(self, connection: Connection, fleet: str) -> None:
        self._connection = connection
        self._fleet = fleet
        self._jetstream: JetStreamContext = connection.client.jetstream(timeout=ANSWER_SECS)
        self._subscriptions: list[Subscription] = []

    @property
    def connection(self) -> int:
        """The number of the present connection to the server: each reconnect counts one more."""
        return self._connection.reconnects

    async def check(self) -> None:
        """Raise `BrokerError` if the buckets are not there."""

        async def attempt() -> None:
            for bucket in (MEMBERS, FLEETS):
                await self._jetstream.stream_info(f"KV_{bucket}")

        try:
            await persist(self._connection, "the fleet", attempt)
        except BrokerError as error:
            if not isinstance(error.__cause__, nats.js.errors.NotFoundError):
                raise
            reason = f"there is no bucket {MEMBERS} or {FLEETS}; `FLEET={self._fleet} transcriber setup` makes them"
            raise BrokerError(self._connection.options.address, reason) from error

    async def listen(self, on_member: Callable[[str, bytes], object], on_plan: Callable[[], object]) -> None:
        """Subscribe to changes: a member's id with its entry, empty when it is gone; and new plans.

        They are hints. A message may be lost, and one may tell of a plan that the server has refused.
        """

        def member(subject: bytes, _headers: bytes, payload: bytes) -> None:
            on_member(incoming.subject_of(subject).rpartition(".")[2], payload)

        def plan(_subject: bytes, _headers: bytes, _payload: bytes) -> None:
            on_plan()

        hand_over = self._connection.hand_over
        self._subscriptions.append(await hand_over(f"$KV.{MEMBERS}.{member_key(self._fleet, '*')}", member))
        self._subscriptions.append(await hand_over(f"$KV.{FLEETS}.{plan_key(self._fleet)}", plan))

    async def on_drain(self, member: str, drain: Callable[[], object]) -> None:
        """Call `drain` when somebody asks this member to give up its partitions, and answer."""

        async def asked(message: Msg) -> None:
            drain()
            if message.reply:
                await message.respond(b"{}")

        for name in (member, member.partition("=")[0]):
            self._subscriptions.append(await self._connection.subscribe(drain_subject(self._fleet, name), asked))

    async def be_present(self, member: str) -> None:
        """Answer those who ask whether this member is connected."""

        async def asked(message: Msg) -> None:
            if message.reply:
                await message.respond(b"{}")

        subscription = await self._connection.subscribe(presence_subject(self._fleet, member), asked)
        self._subscriptions.append(subscription)

    async def ask_to_drain(self, member: str) -> bool:
        """Ask a member, by id or name, to give up its partitions. Return whether it has answered."""
        try:
            await self._connection.client.request(drain_subject(self._fleet, member), b"", timeout=ANSWER_SECS)
        except (nats.errors.Error, TimeoutError):
            return False
        return True

    async def stop_listening(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            await subscription.unsubscribe()
        self._subscriptions.clear()

    async def renew(self, member: str, payload: bytes) -> None:
        """Write a member's entry, which runs out a lease later."""
        await self._jetstream.publish(f"$KV.{MEMBERS}.{member_key(self._fleet, member)}", payload)

    async def leave(self, member: str) -> None:
        """Delete a member's entry."""
        subject = f"$KV.{MEMBERS}.{member_key(self._fleet, member)}"
        await self._jetstream.publish(subject, b"", headers=dict(_DELETED))

    async def remove_if_disconnected(self, member: str) -> bool:
        """Delete a member's entry if its connection is gone, as the server knows. Return whether the entry is gone.

        An entry that is renewed meanwhile stays.
        """
        key = member_key(self._fleet, member)
        data, revision = await self._last(MEMBERS, key)
        if not data:
            return True
        try:
            await self._connection.client.request(presence_subject(self._fleet, member), b"", timeout=_PRESENCE_SECS)
        except nats.errors.NoRespondersError:
            return await self._replace(MEMBERS, key, b"", revision, _DELETED) is not None
        except nats.errors.TimeoutError:  # it may be frozen; its lease decides
            return False
        return False

    async def members(self) -> dict[str, bytes]:
        """All entries of members."""
        info = await self._jetstream.stream_info(
            f"KV_{MEMBERS}", subjects_filter=f"$KV.{MEMBERS}.{member_key(self._fleet, '*')}"
        )
        ids = [subject.rpartition(".")[2] for subject in info.state.subjects or ()]
        entries: dict[str, bytes] = {}
        for at in range(0, len(ids), _AT_A_TIME):
            some = ids[at : at + _AT_A_TIME]
            found = await asyncio.gather(*(self.member(one) for one in some))
            entries |= {one: entry for one, entry in zip(some, found, strict=True) if entry}
        return entries

    async def member(self, member: str) -> bytes | None:
        """A member's entry; None when it has run out or was deleted."""
        data, _ = await self._last(MEMBERS, member_key(self._fleet, member))
        return data or None

    async def plan(self) -> tuple[bytes | None, int]:
        """The plan and its revision; None and 0 if there is none."""
        return await self._last(FLEETS, plan_key(self._fleet))

    async def write_plan(self, payload: bytes, revision: int) -> int | None:
        """Replace the plan of this revision; returns the new one, None if it has been replaced before."""
        return await self._replace(FLEETS, plan_key(self._fleet), payload, revision)

    async def position(self, partition: int) -> tuple[bytes | None, int]:
        """Up to where the streams of a partition are settled, and its revision; None and 0 if nobody has said so."""
        return await self._last(FLEETS, position_key(self._fleet, partition))

    async def write_position(self, partition: int, payload: bytes, revision: int) -> int | None:
        """Replace the positions of this revision; returns the new one, None if they have been replaced before."""
        return await self._replace(FLEETS, position_key(self._fleet, partition), payload, revision)

    async def _replace(
        self, bucket: str, key: str, payload: bytes, revision: int, headers: Mapping[str, str] = MappingProxyType({})
    ) -> int | None:
        expected = {_EXPECTED: str(revision), **headers}
        try:
            written = await self._jetstream.publish(f"$KV.{bucket}.{key}", payload, headers=expected)
        except nats.js.errors.APIError as error:
            if error.err_code in _WRONG_LAST:
                return None
            raise
        return written.seq

    async def _last(self, bucket: str, key: str) -> tuple[bytes | None, int]:
        # Not a direct get: any server may answer that, also one that has not heard of the latest entry yet.
        try:
            entry = await self._jetstream.get_last_msg(f"KV_{bucket}", f"$KV.{bucket}.{key}")
        except nats.js.errors.NotFoundError as error:
            if error.err_code != incoming.NO_MESSAGE:
                raise
            return None, 0
        return entry.data, entry.seq or 0
