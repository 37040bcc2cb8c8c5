"""Calls into whisper.cpp from outside of the daemon, all of them from one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any


@contextmanager
def one_thread() -> Iterator[Callable[..., asyncio.Future[Any]]]:
    """What is called through this runs on one thread, which is gone at the end; await each call.

    Not `asyncio.to_thread`, which may take another one each time: OpenMP keeps a team of threads for every thread that
    has called it, and once they are more than the cores, they no longer wait for each other awake. On two cores a
    window of a tiny-size model then takes 180 ms on two threads in place of 100, and 160 on one.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="whisper") as executor:
        yield partial(asyncio.get_running_loop().run_in_executor, executor)
