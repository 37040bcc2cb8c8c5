"""Calls whisper.cpp outside the daemon, always from one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any


@contextmanager
def one_thread() -> Iterator[Callable[..., asyncio.Future[Any]]]:
    """Yield a function that runs each call on the same thread; await each call. The thread ends with the block.

    `asyncio.to_thread` may use another thread each time. OpenMP keeps a team of threads for each thread that has called
    it. Once these are more than the cores, they wait for each other asleep, which is much slower (docs/performance.md).
    """
    with ThreadPoolExecutor(1, thread_name_prefix="whisper") as executor:
        yield partial(asyncio.get_running_loop().run_in_executor, executor)
