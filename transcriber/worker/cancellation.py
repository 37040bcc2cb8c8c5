"""A request to end a pass of the engine early."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Stop:
    """Made once, by any thread; calling it tells whether it was made."""

    def __init__(self) -> None:
        self._asked = False
        self._tell: Callable[[], object] | None = None

    def __call__(self) -> bool:
        return self._asked

    def ask(self) -> None:
        """Make the request."""
        self._asked = True  # before the look at who is to be told: they look the other way round
        tell = self._tell
        if tell is not None:
            tell()

    @contextmanager
    def told(self, tell: Callable[[], object]) -> Iterator[None]:
        """Call `tell` when the request is made, on the thread that makes it; perhaps twice, and just after the end."""
        self._tell = tell
        try:
            if self._asked:
                tell()
            yield
        finally:
            self._tell = None
