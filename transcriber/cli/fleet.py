"""Implements `fleet status` and `fleet drain`."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import TYPE_CHECKING, Any

from transcriber.broker.fleet import FleetStore
from transcriber.cli.commands import connected, note, write
from transcriber.domain.errors import CannotStart, SettingError
from transcriber.fleet.plan import Plan
from transcriber.fleet.records import decode_member, decode_plan
from transcriber.fleet.view import as_text, view
from transcriber.protocol.partitions import name_of

if TYPE_CHECKING:
    from transcriber.protocol.partitions import FleetOptions
    from transcriber.settings import Settings

_WATCH_SECS = 1.0  # members say what they carry once a second


async def run(options: argparse.Namespace, settings: Settings) -> None:
    """Show the fleet, or ask a member to drain. Raises `BrokerError`, and `CannotStart` without such a member."""
    fleet = settings.fleet
    if fleet is None:
        raise SettingError("FLEET", "", "the name of the fleet")
    async with connected(settings.broker, "transcriber fleet") as connection:
        store = FleetStore(connection, fleet.name)
        await store.check()
        if options.action == "drain":
            await _drain(store, options.member)
            return
        while True:
            seen = {"fleet": fleet.name} | await _seen(store, fleet)
            write(json.dumps(seen) if options.json else as_text(seen))
            if not options.watch:
                return
            await asyncio.sleep(_WATCH_SECS)
            if not options.json:
                write("")


async def _seen(store: FleetStore, fleet: FleetOptions) -> dict[str, Any]:
    members = {one: decode_member(payload) for one, payload in (await store.members()).items()}
    payload, _ = await store.plan()
    return view(decode_plan(payload) if payload else Plan.empty(fleet.partitions), members)


async def _drain(store: FleetStore, member: str) -> None:
    known = sorted(await store.members())
    if member not in {name for one in known for name in (one, name_of(one))}:
        there = ", ".join(name_of(one) for one in known) or "none"
        raise CannotStart(f"{member} is no member of this fleet; there are: {there}")
    if not await store.ask_to_drain(member):
        raise CannotStart(f"{member} does not answer")
    note(f"{member} gives up its partitions; `transcriber fleet status` shows how far it is")
