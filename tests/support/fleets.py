"""A fleet of real daemons: its setup, its settings, a producer that speaks in real time, and its status."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import nats.errors
from harness import Client, Speech, free_port, s16

from transcriber.broker.connection import Connection
from transcriber.broker.fleet import FleetStore
from transcriber.broker.options import BrokerOptions
from transcriber.broker.setup import Storage, set_up
from transcriber.fleet.plan import Plan
from transcriber.fleet.records import decode_member, decode_plan
from transcriber.fleet.view import view
from transcriber.protocol.partitions import FleetOptions

FLEET = FleetOptions("f")


async def set_up_fleet(url: str, fleet: FleetOptions = FLEET, *, live: bool = False) -> list[str]:
    connection = Connection(BrokerOptions(url=url))
    await connection.open()
    try:
        return await set_up(connection, Storage(), fleet, live=live)
    finally:
        await connection.close()


def member(**environ: str) -> dict[str, str]:
    """Settings of one member; its port makes its name."""
    settings = {"FLEET": FLEET.name, "HEALTH_PORT": str(free_port()), "WHISPER_RTF": "0.05", "STATUS_PAGE": "off"}
    return settings | environ


async def play(client: Client, speech: Speech, stream: str, *, offsets: bool = True) -> None:
    """Speak in real time, as a live producer that knows of partitions."""
    size, pcm, began = speech.rate // 10, s16(speech.samples), time.monotonic()
    for number, at in enumerate(range(0, len(speech.samples), size)):
        await asyncio.sleep(max(0.0, began + number * 0.1 - time.monotonic()))
        headers: dict[str, str | int] = {"audio_sample_rate": speech.rate, "audio_session": "x"}
        if offsets:
            headers["audio_offset"] = at
        if at + size >= len(speech.samples):
            headers["audio_event"] = "end"
        await client.send(pcm[2 * at : 2 * (at + size)], subject=FLEET.subject_of(stream), **headers)


async def transcriber(url: str, *arguments: str) -> tuple[int, str]:
    """Run a command of the fleet; returns its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "transcriber",
        *arguments,
        env=os.environ | {"NATS_URL": url, "FLEET": FLEET.name},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def status(url: str) -> dict[str, Any]:
    """What `transcriber fleet status --json` says."""
    code, out = await transcriber(url, "fleet", "status", "--json")
    assert code == 0, out
    found: dict[str, Any] = json.loads(out)
    return found


async def views(url: str) -> AsyncIterator[dict[str, Any]]:
    """Look at plan and members ten times a second."""
    connection = Connection(BrokerOptions(url=url))
    await connection.open()
    store = FleetStore(connection, FLEET.name)
    try:
        while True:
            with contextlib.suppress(nats.errors.Error, TimeoutError):  # the machine is busy
                payload, _ = await store.plan()
                members = {one: decode_member(entry) for one, entry in (await store.members()).items()}
                yield view(decode_plan(payload) if payload else Plan.empty(FLEET.partitions), members)
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def until_seen(url: str, wanted: Callable[[dict[str, Any]], bool], patience: float = 60.0) -> float:
    """Wait until the fleet looks like that; returns how many seconds it took."""
    began = time.monotonic()
    async with asyncio.timeout(patience), contextlib.aclosing(views(url)) as looks:
        async for seen in looks:
            if wanted(seen):
                break
    return time.monotonic() - began
