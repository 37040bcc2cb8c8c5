"""How many CPUs there are, and which of the daemon's threads has one first."""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


def give_way() -> None:
    """From now on what wakes up on the calling thread waits for the end of a running thread's time slice.

    Linux's SCHED_BATCH, which needs no privilege: the same share of the cores, but a thread under it puts off nobody
    when it wakes up (sched(7)). An event loop that wakes up hundreds of times a second otherwise takes the core from
    the engine as often, also while another core idles. Threads made by this one inherit it, so make those that must not
    have it first. A policy that somebody chose for the process (`chrt`, `CPUSchedulingPolicy=`) is left as it is.
    """
    if not hasattr(os, "SCHED_BATCH"):
        return  # not Linux
    try:
        if os.sched_getscheduler(0) == os.SCHED_OTHER:  # 0: the calling thread
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:  # musl has the call without the deed; a sandbox may forbid it
        log.debug("the event loop keeps its scheduling policy: %s", error)


def cpu_quota(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs this process may use: the container's quota (cgroup v2 or v1), else its affinity; at least 1.

    whisper.cpp takes the host's cores by default, and oversubscribing a quota costs far more than it gains.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return available
    if not quota.isdigit() or not int(period):  # "max" and -1 mean no quota
        return available
    return max(1, min(available, int(quota) // int(period)))
