"""How the daemon ends: exit codes, signals, and waiting with a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from enum import IntEnum

from transcriber.domain.errors import BrokerLost, Fenced

log = logging.getLogger(__name__)

_MOMENT_SECS = 0.01  # for tasks that only need a turn of the event loop
_STDIN = 0


class ExitCode(IntEnum):
    """The daemon's exit codes. A second signal ends it at once, with 128 + the signal's number, as shells do."""

    CLEAN = 0
    DEFECT = 1
    BAD_SETTINGS = 2
    CANNOT_START = 3
    BROKER_LOST = 4
    FENCED = 5


def why(ended: set[asyncio.Future[None]]) -> ExitCode:
    """Log why the daemon stops, and return the exit code: after a signal, a lost broker, or an error."""
    for task in ended:
        if task.done() and (error := task.exception()) is not None:
            if isinstance(error, BrokerLost | Fenced):
                log.critical("%s", error)
                return ExitCode.FENCED if isinstance(error, Fenced) else ExitCode.BROKER_LOST
            log.critical("a part of the daemon failed", exc_info=error)
            return ExitCode.DEFECT
    return ExitCode.CLEAN


async def within(seconds: float, awaitable: Awaitable[object]) -> None:
    """Wait for it, then cancel it. A task that ignores its cancellation must not delay the exit."""
    task = asyncio.ensure_future(awaitable)
    await asyncio.wait({task}, timeout=max(_MOMENT_SECS, seconds))
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_MOMENT_SECS)
    if task.done() and not task.cancelled() and (error := task.exception()) is not None:
        log.debug("at shutdown: %s", str(error) or type(error).__name__)


@contextlib.contextmanager
def signals(stop: asyncio.Event, hang_up: Callable[[], object] = lambda: None) -> Iterator[None]:
    """The first SIGTERM or SIGINT sets `stop`; the second ends the process at once.

    SIGHUP calls `hang_up`, as is usual for daemons. But if the process runs in the foreground of a terminal, and that
    has closed, SIGHUP stops the process like the others.
    """
    loop = asyncio.get_running_loop()
    interactive = _in_foreground() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # not under nohup

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            log.critical("forced by a second %s", number.name)
            sys.stdout.flush()
            os._exit(128 + number)
        log.info("%s: stopping", number.name)
        stop.set()

    def on_hang_up() -> None:
        if interactive and not os.isatty(_STDIN):
            on_signal(signal.SIGHUP)
        else:
            hang_up()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    loop.add_signal_handler(signal.SIGHUP, on_hang_up)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


def _in_foreground() -> bool:
    """Whether this process runs in the foreground of a terminal."""
    try:
        return os.isatty(_STDIN) and os.tcgetpgrp(_STDIN) == os.getpgrp()
    except OSError:  # a terminal, but not of this process
        return False
