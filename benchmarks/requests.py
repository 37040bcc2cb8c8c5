"""What the gateway adds to short recordings in JSON: wrk, a gateway, a server, and a worker that only waits."""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil

from benchmarks.report import Report, table
from benchmarks.rig import environ_for
from benchmarks.stub_worker import DELAY_SECS
from transcriber.cli.programs import Program, find_server, run_program, run_server, unless_ended, until_ready
from transcriber.domain.errors import CannotStart

_THREADS = 4  # of wrk, at most
_RATE = 16_000  # Hz
_WARM_SECS = 2  # before a measurement: connections open, caches fill
_MEAN_DELAY = sum(DELAY_SECS) / 2

MEASURED = {
    "limit": "connections over the stub worker's mean delay (Little's law): the most that waiting allows",
    "share": "requests a second over the limit; below it, the machine is full or the gateway is slow",
    "cpu": "CPU time of the gateway's process over its requests",
    "latency": "as wrk measures it, the worker's 10 to 50 ms included",
}

# wrk runs this; its numbers are exact, while its own report rounds them.
_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = %s
done = function(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format('\\n{"requests": %%d, "microseconds": %%d, "failed": %%d, "p50": %%d, "p99": %%d}\\n',
    summary.requests, summary.duration, failed, latency:percentile(50), latency:percentile(99)))
end
"""


async def run(options: argparse.Namespace) -> Report:
    """Measure each number of connections. Raises `CannotStart` without wrk."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise CannotStart("no wrk found: apt install wrk")
    report = Report(
        benchmark="requests",
        settings={"seconds": options.seconds, "audio_ms": options.audio_ms, "most_threads_of_wrk": _THREADS},
        measured=MEASURED,
    )
    rows = []
    with tempfile.TemporaryDirectory(prefix="transcriber-benchmarks-") as name:
        script = Path(name) / "post.lua"
        script.write_text(_SCRIPT % json.dumps(_body(options.audio_ms)))
        async with _site(Path(name)) as (url, gateway, programs):
            for connections in options.connections:
                await unless_ended(_load(wrk, script, url, connections, _WARM_SECS), *programs)
                before = _cpu(gateway)
                found = await unless_ended(_load(wrk, script, url, connections, options.seconds), *programs)
                row = _row(found, connections, _cpu(gateway) - before)
                report.figures[str(connections)] = row
                report.ratios[f"share_at_{connections}"] = row["share"]
                rows.append(_cells(connections, row))
                if row["failed"]:
                    report.notes.append(f"at {connections} connections {row['failed']:g} requests failed")
    head = ["connections", "requests/s", "limit", "share", "p50 ms", "p99 ms", "CPU us/request"]
    report.tables.append(table(head, rows))
    return report


def _row(found: Mapping[str, float], connections: int, cpu: float) -> dict[str, float]:
    """The figures of one load. `cpu` in seconds."""
    rate = found["requests"] / found["microseconds"] * 1e6
    limit = connections / _MEAN_DELAY
    return {
        "rate": rate,
        "limit": limit,
        "share": rate / limit,
        "p50": found["p50"] / 1e6,
        "p99": found["p99"] / 1e6,
        "cpu": cpu / found["requests"] if found["requests"] else 0.0,
        "failed": found["failed"],
    }


def _cells(connections: int, row: Mapping[str, float]) -> list[str]:
    return [
        str(connections),
        f"{row['rate']:.0f}",
        f"{row['limit']:.0f}",
        f"{row['share']:.3f}",
        f"{row['p50'] * 1e3:.1f}",
        f"{row['p99'] * 1e3:.1f}",
        f"{row['cpu'] * 1e6:.0f}",
    ]


def _body(milliseconds: int) -> str:
    """The JSON of one request: silence in a WAV."""
    size = 2 * _RATE * milliseconds // 1000
    file = io.BytesIO()
    file.write(b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt ")
    file.write(struct.pack("<IHHIIHH", 16, 1, 1, _RATE, 2 * _RATE, 2, 16))
    file.write(b"data" + struct.pack("<I", size) + bytes(size))
    audio = base64.b64encode(file.getvalue()).decode()
    return json.dumps({"audio_data": audio, "format": "wav", "language": "en"})


@asynccontextmanager
async def _site(folder: Path) -> AsyncIterator[tuple[str, Program, list[Program]]]:
    """A server, a stub worker and a gateway. Yields the gateway's URL, the gateway, and all of them."""
    async with AsyncExitStack() as stack:
        url, server = await stack.enter_async_context(run_server(find_server(), folder))
        environ = environ_for(url) | {"GATEWAY_PORT": "0"}
        there: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        port: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def on_worker(line: str) -> None:
            if line == "ready":
                there.set_result(None)
            else:
                sys.stderr.write(f"stub worker: {line}\n")

        def on_gateway(line: str) -> None:
            record = json.loads(line) if line.startswith("{") else {"message": line, "level": "warning"}
            if record["message"] == "ready":
                port.set_result(str(record["port"]))
            elif record["level"] not in {"debug", "info"}:
                sys.stderr.write(f"gateway: {record['message']}\n")

        command = (sys.executable, "-P", "-m")
        start = run_program("the stub worker", *command, "benchmarks.stub_worker", on_line=on_worker, env=environ)
        worker = await stack.enter_async_context(start)
        await until_ready(there, worker)
        start = run_program("the gateway", *command, "transcriber", "gateway", on_line=on_gateway, env=environ)
        gateway = await stack.enter_async_context(start)
        address = f"http://127.0.0.1:{await until_ready(port, gateway)}/transcribe"
        yield address, gateway, [server, worker, gateway]


async def _load(wrk: str, script: Path, url: str, connections: int, seconds: int) -> dict[str, float]:
    """Run wrk. Returns what its script printed."""
    lines: list[str] = []
    threads = _threads(connections)
    command = (wrk, f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script), url)
    async with run_program("wrk", *command, on_line=lines.append, env=dict(os.environ)) as program:
        await program.finished()
    found: dict[str, float] = json.loads(next(line for line in lines if line.startswith("{")))
    return found


def _threads(connections: int) -> int:
    """The most threads among which wrk can share its connections. With four of them it opens 48, where 50 are asked."""
    return next(threads for threads in range(_THREADS, 0, -1) if connections % threads == 0)


def _cpu(program: Program) -> float:
    times = psutil.Process(program.pid).cpu_times()
    return float(times.user + times.system)
