"""A request to end a pass: made once, from any thread, heard by the thread that runs it."""

from __future__ import annotations

from contextlib import suppress

from transcriber.worker.cancellation import Stop


def test_request_reaches_its_listener_and_stays() -> None:
    """The listener hears nothing before. The answer changes once."""
    stop, notified = Stop(), list[bool]()
    with stop.notifying(lambda: notified.append(stop.requested())):
        assert (stop.requested(), notified) == (False, [])
        stop.request()
    assert (stop.requested(), notified) == (True, [True])


def test_earlier_request_reaches_a_new_listener_at_once() -> None:
    """A pass that begins late is stopped all the same."""
    stop, notified = Stop(), list[bool]()
    stop.request()
    with stop.notifying(lambda: notified.append(stop.requested())):
        assert notified == [True]


def test_listener_hears_nothing_after_the_pass() -> None:
    """The pass is over, whatever ended it."""
    stop, notified = Stop(), list[bool]()
    with suppress(ZeroDivisionError), stop.notifying(lambda: notified.append(stop.requested())):
        1 / 0  # noqa: B018 - whatever ends it
    stop.request()
    assert notified == []
