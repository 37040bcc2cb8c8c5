"""Hands results from threads to the event loop, which may be closed by then."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
log = logging.getLogger(__name__)


def post(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *args: object) -> bool:
    """Schedule a call on the event loop, from any thread. False when the loop is closed because the process ends."""
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:
        log.debug("the event loop is gone")
        return False
    return True


class ThreadFuture(Generic[T]):
    """A future of the running event loop that another thread settles."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self._loop.create_future()

    def settle(self, result: T | Exception) -> None:
        """Set the result or the exception, from any thread. No effect when the future is done or cancelled."""
        post(self._loop, self._settle, result)

    def _settle(self, result: T | Exception) -> None:
        if self.future.done():  # it was cancelled
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


def on_thread(call: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run a blocking call on a daemon thread of that name. The future gets its result, or what it raises.

    Not an executor: the interpreter waits for its threads at exit, however long they take.
    """
    answer = ThreadFuture[T]()

    def run() -> None:
        try:
            answer.settle(call())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the future is awaited
            answer.settle(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return answer.future
