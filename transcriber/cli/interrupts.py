"""How a command ends: interrupted from outside, or by leaving at once."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Coroutine, Iterator
from types import FrameType
from typing import Any, NoReturn

_NOTICE_SECS = 1.0  # an event loop that has not noticed a signal by then does not run
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, kill, and a terminal window that is closed


def interruptible(work: Coroutine[Any, Any, None]) -> int:
    """Run until done; a first signal cancels the work, a second one also its cleaning up. Returns the exit code."""
    _log_to_stderr()
    signals = _Signals()

    async def interrupted() -> None:
        signals.cancel(asyncio.current_task())
        await work

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        asyncio.run(interrupted())
    except asyncio.CancelledError:
        if not signals.caught:
            raise
    except KeyboardInterrupt:  # see `_Signals`
        discard_output()
    finally:
        for number, handler in before.items():  # once interrupted we are leaving: no signal may disturb that
            signal.signal(number, signal.SIG_IGN if signals.caught else handler)
    return 128 + signals.caught[0] if signals.caught else 0


class _Signals:
    """Cancels a task, once for the first signal and once for the second.

    Raises `KeyboardInterrupt` instead where the event loop does not run: in a write, say, into a pager that waits for
    its user. Anywhere else that could tear a callback of asyncio's in two and lose the news of a child's end.
    """

    def __init__(self) -> None:
        self.caught: list[int] = []
        self._numbers = itertools.count(1)
        self._stuck_from = math.inf

    def cancel(self, task: asyncio.Task[Any] | None) -> None:
        """Take over the signals, all but those that are ignored: under nohup, or in a job in the background."""
        assert task is not None  # noqa: S101 - only code outside of a task finds none
        self._loop, self._task = asyncio.get_running_loop(), task
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # Counted in one step: the next signal may come before the next line, and be dealt with first.
        count = next(self._numbers)
        self.caught.append(number)
        logging.disable()  # what closing down brings about is no news
        if time.monotonic() > self._stuck_from:
            raise KeyboardInterrupt
        if count <= 2:  # noqa: PLR2004 - more of them find everything on its way out
            self._stuck_from = min(self._stuck_from, time.monotonic() + _NOTICE_SECS)
            self._loop.call_soon_threadsafe(self._noticed)

    def _noticed(self) -> None:
        self._stuck_from = math.inf
        self._task.cancel()
        if len(self.caught) > 1:  # Python 3.11's wait_for may swallow a cancellation that comes with its result
            self._loop.call_later(_NOTICE_SECS, self._noticed)


def _log_to_stderr() -> None:
    """Show warnings, and the same one in a row once: a connection is retried every half second."""
    last = ""

    def news(record: logging.LogRecord) -> bool:
        nonlocal last
        before, last = last, record.getMessage()
        return last != before

    handler = logging.StreamHandler()
    handler.addFilter(news)
    logging.basicConfig(level=logging.WARNING, format="transcriber: %(message)s", handlers=[handler])


@contextlib.contextmanager
def leaving_in_order() -> Iterator[None]:
    """Within, a signal ends the program by SystemExit, so that what was begun is cleared away; the next are ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    caught = False

    def on_signal(number: int, _frame: FrameType | None) -> NoReturn:
        nonlocal caught
        caught = True
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, on_signal)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if caught else handler)


def leave(code: int) -> NoReturn:
    """End the process where everything has been flushed but native threads may still run.

    The Whisper thread may be in a window beyond the grace period, an exporter's in a call that nobody answers; the
    interpreter, torn down under them, now and then aborts, and the exit code would be that of a crash.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def discard_output() -> None:
    """Let the interpreter flush what is left into nothing, or it would complain at its end."""
    with contextlib.suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
