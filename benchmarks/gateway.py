"""Measures the gateway: memory of idle clients, latency and cost of live ones, reconnects."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.gateway_clients import Clients
from benchmarks.gateway_worker import FIGURES
from benchmarks.report import Report, percentiles, table
from transcriber.broker.asking import Asking
from transcriber.broker.connection import Connection
from transcriber.broker.options import BrokerOptions
from transcriber.cli.programs import (
    Program,
    environment,
    find_server,
    run_program,
    run_server,
    unless_ended,
    until_ready,
)

_WARM_UP = 50  # clients, for what is allocated once
_SETTLE_SECS = 2.0  # until everything sent has arrived, and buffers of the handshakes are free
_SPARE_FILES = 200
_LATE_SECS = 0.005  # of the clients: what the gateway itself may add, so that they do not hide it

MEASURED = {
    "idle": "growth of the gateway's resident memory over the idle clients, each of which has a session open: it has "
    "sent one chunk, and is subscribed to its results",
    "live": "chunks in real time on all live clients. in: from the client's write to the worker's callback, over NATS. "
    "out: from the worker's publish to the client's callback. cpu: CPU time of the gateway over seconds of audio",
    "sender": "how late the clients themselves sent, which is in no other figure",
    "lost": "chunks whose offset is not the end of the chunk before, by the worker's count",
    "reconnects": "all at once, from the first connect to the last answer; refused: answered with anything but 101",
}


@dataclass(slots=True)
class _Rig:
    """A server, a stub worker and a gateway."""

    port: int
    pid: int
    asking: Asking

    async def figures(self) -> dict[str, Any]:
        """What the worker found since it was asked last."""
        found: dict[str, Any] = json.loads(await self.asking.ask(FIGURES, b"", {}, 10.0))
        return found


async def run(options: argparse.Namespace) -> Report:
    """Run all parts, one after the other."""
    most = max(options.idle, options.live, options.reconnects) + _WARM_UP
    _raise_file_limit(most + _SPARE_FILES)
    names = ("idle", "live", "seconds", "chunk_ms", "reconnects")
    report = Report(benchmark="gateway", settings={n: getattr(options, n) for n in names}, measured=MEASURED)
    async with _rig(most) as rig:
        base = machine.memory_bytes(rig.pid)
        figures: dict[str, Any] = {"base_bytes": base, "idle": await _idle(rig, options.idle)}
        figures["live"] = await _live(rig, options)
        figures["reconnects"] = await _reconnects(rig, options.reconnects)
    report.figures = figures
    report.tables = list(_tables(figures))
    late = figures["live"]["sender"]["p99"]
    if late > _LATE_SECS:
        report.notes.append(f"the clients sent up to {late * 1000:.0f} ms late (p99): the machine is full")
    return report


async def _idle(rig: _Rig, number: int) -> dict[str, Any]:
    clients = Clients(rig.port)
    await clients.connect(_WARM_UP)
    await clients.begin()
    await asyncio.sleep(_SETTLE_SECS)
    before, cpu = machine.memory_bytes(rig.pid), machine.cpu_seconds(rig.pid)
    seconds = await clients.connect(number)
    accepted = machine.cpu_seconds(rig.pid) - cpu
    await clients.begin()
    await asyncio.sleep(_SETTLE_SECS)
    total = machine.memory_bytes(rig.pid)
    found = {
        "clients": number,
        "refused": clients.refused,
        "closed": clients.closed,
        "total_bytes": total,
        "bytes_each": (total - before) / number,
        "connect_secs": seconds,
        "accept_cpu_us": accepted / number * 1e6,
    }
    await clients.close()
    return found


async def _live(rig: _Rig, options: argparse.Namespace) -> dict[str, Any]:
    clients = Clients(rig.port)
    await clients.connect(options.live)
    await clients.speak(1.0, options.chunk_ms)  # sessions open, and memory is touched
    await asyncio.sleep(_SETTLE_SECS)
    await rig.figures()
    clients.late.clear()
    cpu = machine.cpu_seconds(rig.pid)
    late = await clients.speak(options.seconds, options.chunk_ms)
    await asyncio.sleep(_SETTLE_SECS)
    audio = options.live * options.seconds
    found: dict[str, Any] = {
        "clients": options.live,
        "cpu_ms_a_second": (machine.cpu_seconds(rig.pid) - cpu) / audio * 1000,
    }
    worker = await rig.figures()
    found |= {"chunks": worker["chunks"], "lost": worker["lost"], "in": worker["late"]}
    found |= {
        "sent": options.live * round(options.seconds * 1000 / options.chunk_ms),
        "sender": percentiles(late, 50, 99),
    }
    found |= {"out": percentiles(clients.late, 50, 99), "closed": clients.closed}
    await clients.close()
    return found


async def _reconnects(rig: _Rig, number: int) -> dict[str, Any]:
    clients = Clients(rig.port)
    seconds = await clients.connect(number, at_once=number)
    found = {"clients": number, "seconds": seconds, "refused": clients.refused}
    await clients.close()
    return found


@asynccontextmanager
async def _rig(connections: int) -> AsyncIterator[_Rig]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="transcriber-gateway-")))
        url, _ = await stack.enter_async_context(run_server(find_server(), folder))
        environ = environment(os.environ) | {"NATS_URL": url}
        command = (sys.executable, "-P", "-m", "benchmarks.gateway_worker")
        await stack.enter_async_context(_started("the worker", command, environ, "ready"))
        more = {"GATEWAY_PORT": "0", "GATEWAY_MAX_CONNECTIONS": str(connections + _SPARE_FILES), "LOG_FORMAT": "json"}
        serve = (sys.executable, "-P", "-m", "transcriber", "gateway")
        starting = _started("the gateway", serve, environ | more, '"message": "ready"')
        gateway, line = await stack.enter_async_context(starting)
        port = json.loads(line)["port"]
        connection = Connection(BrokerOptions(url=url), name="benchmarks")
        stack.push_async_callback(connection.close)
        await connection.open()
        asking = Asking(connection)
        await asking.start()
        yield _Rig(port, gateway.pid, asking)


@asynccontextmanager
async def _started(
    name: str, command: tuple[str, ...], environ: Mapping[str, str], text: str
) -> AsyncIterator[tuple[Program, str]]:
    """Run a program; yield it and its first line that holds the text."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_line(line: str) -> None:
        if text in line and not ready.done():
            ready.set_result(line)

    async with run_program(name, *command, on_line=on_line, env=environ) as program:
        yield program, await unless_ended(until_ready(ready, program), program)


def _raise_file_limit(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def _tables(figures: dict[str, Any]) -> list[str]:
    idle, live, again = figures["idle"], figures["live"], figures["reconnects"]
    rows = [
        ("memory before any client", f"{figures['base_bytes'] / 1e6:.0f} MB"),
        (f"with {idle['clients']} idle clients", f"{idle['total_bytes'] / 1e6:.0f} MB"),
        ("an idle client", f"{idle['bytes_each'] / 1000:.1f} kB"),
        ("CPU to accept one", f"{idle['accept_cpu_us']:.0f} us"),
        (f"{live['clients']} live clients: CPU", f"{live['cpu_ms_a_second']:.3f} ms a second of audio"),
        ("lost", f"{live['lost']} of {live['sent']}"),
        (f"{again['clients']} reconnects at once", f"{again['seconds']:.2f} s, {again['refused']} refused"),
    ]
    tables = [table(("", ""), rows)]
    ways = [(way, *(_ms(live[way][p]) for p in ("p50", "p99"))) for way in ("in", "out", "sender")]
    tables.append(table(("added latency", "p50 ms", "p99 ms"), ways))
    return tables


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f}"
