"""Shows the progress of a download on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

from tqdm import tqdm


@contextmanager
def bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar from the first bytes on. Yields a function that takes the bytes done and the bytes in total."""
    bars: list[tqdm[NoReturn]] = []

    def progress(done: int, total: int) -> None:
        if not bars:
            unit: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
            bars.append(stack.enter_context(tqdm(total=total, initial=done, desc=name, disable=None, **unit)))
        if total != bars[0].total:  # a second source, after the first has failed
            bars[0].reset(total)
        bars[0].update(done - bars[0].n)

    with ExitStack() as stack:
        yield progress
