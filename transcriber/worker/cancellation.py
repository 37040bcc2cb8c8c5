"""A request to end a pass of the engine early."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Stop:
    """Made once, by any thread. `requested` says whether it was made."""

    def __init__(self) -> None:
        self._requested = False
        self._notify: Callable[[], object] | None = None

    def requested(self) -> bool:
        """Whether the request was made."""
        return self._requested

    def request(self) -> None:
        """Make the request."""
        self._requested = True  # before `_notify` is read: `notifying` sets and reads them in the opposite order
        notify = self._notify
        if notify is not None:
            notify()

    @contextmanager
    def notifying(self, notify: Callable[[], object]) -> Iterator[None]:
        """Call `notify` when the request is made, on the thread that makes it.

        It may be called twice, and once more just after the block has ended.
        """
        self._notify = notify
        try:
            if self._requested:
                notify()
            yield
        finally:
            self._notify = None
