"""The way back from a thread to the event loop, which may be gone by then."""

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
    """Have the event loop make this call soon. False when the loop is closed: the process is ending."""
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:
        log.debug("the event loop is gone")
        return False
    return True


class Answer(Generic[T]):
    """A future of the running event loop that another thread settles."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self._loop.create_future()

    def give(self, result: T | Exception) -> None:
        """Settle it, from any thread. Without effect when nobody waits any more."""
        post(self._loop, self._settle, result)

    def _settle(self, result: T | Exception) -> None:
        if self.future.done():  # it was cancelled
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


def on_thread(call: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run a blocking call on a daemon thread of that name; the future has its result, or what it raised.

    An executor's thread would be waited for at exit, however long it takes.
    """
    answer = Answer[T]()

    def run() -> None:
        try:
            answer.give(call())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the future is awaited
            answer.give(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return answer.future
