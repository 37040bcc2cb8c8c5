"""A request to end a pass: made once, from any thread, heard by whoever runs it."""

from __future__ import annotations

from contextlib import suppress

from transcriber.worker.cancellation import Stop


def test_a_request_is_told_to_whoever_listens_and_stays() -> None:
    """Nothing is told before; the answer changes once."""
    stop, told = Stop(), list[bool]()
    with stop.told(lambda: told.append(stop())):
        assert (stop(), told) == (False, [])
        stop.ask()
    assert (stop(), told) == (True, [True])


def test_a_request_from_before_is_told_at_once() -> None:
    """A pass that begins late is stopped all the same."""
    stop, told = Stop(), list[bool]()
    stop.ask()
    with stop.told(lambda: told.append(stop())):
        assert told == [True]


def test_nobody_is_told_behind_the_end() -> None:
    """The pass is over, whatever ended it."""
    stop, told = Stop(), list[bool]()
    with suppress(ZeroDivisionError), stop.told(lambda: told.append(stop())):
        1 / 0  # noqa: B018 - whatever ends it
    stop.ask()
    assert told == []
