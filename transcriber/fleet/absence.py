"""Finds the members that are gone: whose leases have run out, or whose connections the server knows no more."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from transcriber.fleet.plan import coordinator

if TYPE_CHECKING:
    from transcriber.broker.fleet import FleetStore
    from transcriber.fleet.roster import Roster

log = logging.getLogger(__name__)


async def note_absent(roster: Roster, store: FleetStore, me: str, *, valid: bool) -> None:
    """Ask the server for members that are overdue, and note those that are gone. Raises what `FleetStore` does.

    The member that makes the plans without the silent ones also removes the entries of those without a connection.
    `valid`: whether the lease of `me` holds.
    """
    now = time.monotonic()
    silent = roster.silent(now)
    awake = {one: member for one, member in roster.members.items() if one not in silent}
    removes = valid and coordinator(awake) == me
    for one in silent if removes else roster.overdue(now):
        if one != me and await (store.remove_if_disconnected(one) if removes else _has_no_entry(store, one)):
            log.warning("a member of the fleet is gone", extra={"member": one})
            roster.gone(one, time.monotonic())


async def _has_no_entry(store: FleetStore, member: str) -> bool:
    return await store.member(member) is None
