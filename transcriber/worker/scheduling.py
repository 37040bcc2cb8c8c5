"""Which of the daemon's threads has a core first when both want one."""

from __future__ import annotations

import logging
import os

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
