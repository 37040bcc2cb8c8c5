"""A request to end a pass: made once, from any thread, heard by the thread that runs it."""

from __future__ import annotations

from contextlib import suppress

from transcriber.worker.cancellation import Stop


def test_request_reaches_its_listener_and_stays() -> None:
    """The listener hears nothing before. The answer changes once."""
    stop, told = Stop(), list[bool]()
    with stop.told(lambda: told.append(stop())):
        assert (stop(), told) == (False, [])
        stop.ask()
    assert (stop(), told) == (True, [True])


def test_earlier_request_reaches_a_new_listener_at_once() -> None:
    """A pass that begins late is stopped all the same."""
    stop, told = Stop(), list[bool]()
    stop.ask()
    with stop.told(lambda: told.append(stop())):
        assert told == [True]


def test_listener_hears_nothing_after_the_pass() -> None:
    """The pass is over, whatever ended it."""
    stop, told = Stop(), list[bool]()
    with suppress(ZeroDivisionError), stop.told(lambda: told.append(stop())):
        1 / 0  # noqa: B018 - whatever ends it
    stop.ask()
    assert told == []
