"""The way back from a thread to the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from transcriber.threads import ThreadFuture, on_thread, post


async def test_a_call_runs_on_a_daemon_thread_of_its_own() -> None:
    """The process may end before the call does."""
    thread = await on_thread(threading.current_thread, "alone")
    assert (thread.name, thread.daemon) == ("alone", True)
    assert thread is not threading.current_thread()


async def test_exception_of_the_call_is_raised_where_it_is_awaited() -> None:
    def fails() -> None:
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        await on_thread(fails, "fails")


@pytest.mark.parametrize("result", [1, ValueError("odd")], ids=["a value", "an exception"])
async def test_an_answer_that_nobody_waits_for_is_dropped(result: int | Exception) -> None:
    """The event loop does not complain."""
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    answer = ThreadFuture[int]()
    answer.future.cancel()
    await on_thread(lambda: answer.settle(result), "late")
    assert answer.future.cancelled()
    assert errors == []


async def test_the_first_answer_counts() -> None:
    answer = ThreadFuture[int]()
    answer.settle(1)
    answer.settle(2)
    assert await answer.future == 1
    assert await on_thread(lambda: None, "later") is None
    assert answer.future.result() == 1


def test_a_closed_event_loop_is_nobodys_error() -> None:
    """A thread that outlives the loop ends quietly."""
    done = threading.Event()

    async def begin() -> ThreadFuture[bool]:
        on_thread(done.wait, "outlives the loop")
        return ThreadFuture[bool]()

    answer = asyncio.run(begin())
    answer.settle(True)
    assert not post(answer.future.get_loop(), print)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "outlives the loop")
    done.set()
    thread.join()  # pytest fails the test for what a thread raises


async def test_a_call_is_made_on_the_event_loop() -> None:
    made: asyncio.Future[threading.Thread] = asyncio.get_running_loop().create_future()
    assert post(asyncio.get_running_loop(), lambda: made.set_result(threading.current_thread()))
    assert await made is threading.current_thread()
