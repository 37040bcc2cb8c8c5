"""The thread for calls of whisper.cpp outside the daemon."""

from __future__ import annotations

import threading

from transcriber.worker.one_thread import one_thread


async def test_calls_share_one_thread_that_is_gone_at_the_end() -> None:
    """`asyncio.to_thread` takes another thread whenever the last one is not idle yet."""
    with one_thread() as call:
        callers = {await call(threading.current_thread) for _ in range(200)}
    (caller,) = callers
    assert caller is not threading.current_thread()
    assert not caller.is_alive()
