"""How a command ends: interrupted by a signal, or by leaving at once."""

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
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, NoReturn

_NOTICE_SECS = 1.0  # an event loop that has not reacted to a signal by then is blocked
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, kill, and a terminal window that is closed


def interruptible(work: Coroutine[Any, Any, None], runner: Callable[[], asyncio.Runner] = asyncio.Runner) -> int:
    """Run the work. The first signal cancels it, and the second cancels its cleanup too. Returns the exit code."""
    _log_to_stderr()
    signals = _Signals()

    async def interrupted() -> None:
        signals.cancel(asyncio.current_task())
        await work

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with runner() as loop:
            loop.run(interrupted())
    except asyncio.CancelledError:
        if not signals.caught:
            raise
    except KeyboardInterrupt:  # see `_Signals`
        discard_output()
    finally:
        for number, handler in before.items():  # once interrupted we are leaving: ignore further signals
            signal.signal(number, signal.SIG_IGN if signals.caught else handler)
    return 128 + signals.caught[0] if signals.caught else 0


class _Signals:
    """Cancels a task, once for the first signal and once for the second.

    Raises `KeyboardInterrupt` instead while the event loop is blocked, for example in a write to a pager that waits
    for its user. Elsewhere that could interrupt a callback of asyncio's halfway, and a child's end would go unnoticed.
    """

    def __init__(self) -> None:
        self.caught: list[int] = []
        self._numbers = itertools.count(1)
        self._stuck_from = math.inf

    def cancel(self, task: asyncio.Task[Any] | None) -> None:
        """Handle the signals, except those that are ignored, as under nohup or in a background job."""
        assert task is not None  # noqa: S101 - None only outside a task
        self._loop, self._task = asyncio.get_running_loop(), task
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # Count in one step: the next signal may arrive before the next line runs, and be handled first.
        count = next(self._numbers)
        self.caught.append(number)
        logging.disable()  # errors from closing down would only confuse
        if time.monotonic() > self._stuck_from:
            raise KeyboardInterrupt
        if count <= 2:  # noqa: PLR2004 - after the second, everything is ending already
            self._stuck_from = min(self._stuck_from, time.monotonic() + _NOTICE_SECS)
            self._loop.call_soon_threadsafe(self._noticed)

    def _noticed(self) -> None:
        self._stuck_from = math.inf
        self._task.cancel()
        if len(self.caught) > 1:  # Python 3.11's wait_for may swallow a cancellation that comes with its result
            self._loop.call_later(_NOTICE_SECS, self._noticed)


def _log_to_stderr() -> None:
    """Show warnings, a repeated one only once in a row: a connection is retried every half second."""
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
    """Within this context, the first signal raises `SystemExit`, so that cleanup runs. Further signals are ignored."""
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
    """Flush everything and end the process at once, although native threads may still run.

    The Whisper thread may be decoding past the grace period, an exporter's thread may wait for an answer. A normal exit
    would tear the interpreter down under them. That sometimes aborts, and the exit code would be that of a crash.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def discard_output() -> None:
    """Point standard output at /dev/null, or the interpreter would complain when it flushes the rest at exit."""
    with contextlib.suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
