"""How a pass of whisper.cpp is ended early."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import _pywhispercpp as whisper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transcriber.worker.cancellation import Stop


@contextmanager
def stoppable(parameters: Any, stop: Stop | None) -> Iterator[None]:  # noqa: ANN401 - the bindings have no types
    """Let `stop` end the pass of whisper.cpp that runs with these parameters.

    whisper.cpp asks whether to go on after the encoder and after each token, 12 times in a five-second window, and the
    bindings take the GIL for the answer, for which the thread has to wait and then to be scheduled again: 2.3 % of a
    window's time beside an event loop that takes in 338 streams on two cores. But they do so only while there is a
    callback. So it is taken away once the pass has begun, and with that has got its own copy of the parameters, in
    which the question stays; and it is put back when there is something to say.
    """
    if stop is None:
        yield
        return

    def put() -> None:
        whisper.assign_abort_callback(parameters, stop)

    def take_away(_context: object) -> bool:
        whisper.clear_abort_callback(parameters)
        if stop():
            put()
        return True

    put()
    whisper.assign_encoder_begin_callback(parameters, take_away)
    try:
        with stop.told(put):
            yield
    finally:
        whisper.clear_encoder_begin_callback(parameters)  # it holds the parameters, and they it
