"""Describes the machine, and reads the CPU time and memory of a process."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from transcriber.cli.programs import find_server
from transcriber.domain.errors import CannotStart
from transcriber.worker.scheduling import cpu_quota

_PACKAGES = ("transcriber", "pywhispercpp", "nats-py", "numpy", "soxr", "webrtcvad-wheels")
_CPUCLOCK_SCHED = 2  # <linux/posix-timers.h>: the clock that counts a process's time on CPUs


def describe() -> dict[str, object]:
    """Processor, cores, memory, system, and the load before (runnable processes, mean of a minute)."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "cpu_quota": cpu_quota(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Return the versions of this program, of the libraries that use the CPU, and of the server."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a working copy that was never installed
            found[name] = "unknown"
    try:
        command = [str(find_server()), "--version"]
        found["nats-server"] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]  # noqa: S603
    except CannotStart:  # the user's own server may be used
        pass
    return found


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, user and system, all threads, in seconds.

    On Linux it is read from the process's own clock, in nanoseconds, as in clock_getcpuclockid(3). psutil reads /proc.
    Its unit of 10 ms is a tenth of what a light load uses in ten seconds.
    """
    if sys.platform == "linux":
        return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def memory_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(psutil.Process(pid).memory_info().rss)


def free_port() -> int:
    """A loopback port that is free at this moment."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
