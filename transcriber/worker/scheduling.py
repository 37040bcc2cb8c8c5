"""How many CPUs there are, and which of the daemon's threads gets one first."""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


def set_batch_scheduling() -> None:
    """Stop the calling thread from preempting others when it wakes up, with Linux's SCHED_BATCH.

    It needs no privilege, and the thread's share of the cores stays the same (sched(7)). Otherwise an event loop that
    wakes up hundreds of times a second takes the core from the engine as often. It does so even while another core is
    idle. New threads of the calling thread inherit the policy, so start those that must not have it first. A policy
    that was chosen for the process (`chrt`, `CPUSchedulingPolicy=`) stays.
    """
    if not hasattr(os, "SCHED_BATCH"):
        return  # not Linux
    try:
        if os.sched_getscheduler(0) == os.SCHED_OTHER:  # 0: the calling thread
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:  # musl's stub returns ENOSYS; a sandbox may forbid the call
        log.debug("the event loop keeps its scheduling policy: %s", error)


def cpu_quota(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs that this process may use: its container's quota (cgroup v2 or v1) or its affinity; at least 1.

    whisper.cpp uses all cores of the host by default, and more threads than the quota cost far more than they gain.
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
