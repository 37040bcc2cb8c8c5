"""Which of the daemon's threads gets a core first."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Daemon

from transcriber.worker import scheduling

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="scheduling policies are Linux's")


def threads(pid: int) -> set[int]:
    return {int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()}


async def test_the_event_loop_gives_way_to_the_engine(daemon: Daemon) -> None:
    """The thread that wakes up all the time comes last. The engine's thread does not inherit that."""
    pid = daemon.process.pid
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH
    assert {os.sched_getscheduler(thread) for thread in threads(pid) - {pid}} == {os.SCHED_OTHER}


@pytest.mark.parametrize(("chosen", "then"), [("SCHED_OTHER", "SCHED_BATCH"), ("SCHED_IDLE", "SCHED_IDLE")])
def test_a_policy_that_somebody_chose_is_kept(chosen: str, then: str) -> None:
    """A daemon that was given the lowest priority on its machine must not raise it by itself."""

    def after() -> int:
        os.sched_setscheduler(0, getattr(os, chosen), os.sched_param(0))
        scheduling.set_batch_scheduling()
        return os.sched_getscheduler(0)

    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(after).result() == getattr(os, then)
