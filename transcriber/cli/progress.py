"""How far a download is, on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

from tqdm import tqdm


@contextmanager
def bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that appears with the first bytes; yields what is told bytes done and bytes in all."""
    bars: list[tqdm[NoReturn]] = []

    def progress(done: int, total: int) -> None:
        if not bars:
            unit: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
            bars.append(stack.enter_context(tqdm(total=total, initial=done, desc=name, disable=None, **unit)))
        if total != bars[0].total:  # another source, after the first had failed
            bars[0].reset(total)
        bars[0].update(done - bars[0].n)

    with ExitStack() as stack:
        yield progress
