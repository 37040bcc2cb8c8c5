"""Ends a pass of whisper.cpp early."""

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

    whisper.cpp asks whether to go on after the encoder and after each token. For each answer the bindings take the GIL,
    and the engine's thread waits for it (docs/performance.md has the cost). But they do so only while a callback is
    installed. So the callback is removed once the pass has begun. By then the pass has its own copy of the parameters,
    which still asks. The callback is installed again when a stop is requested.
    """
    if stop is None:
        yield
        return

    def install() -> None:
        whisper.assign_abort_callback(parameters, stop.requested)

    def remove(_context: object) -> bool:
        whisper.clear_abort_callback(parameters)
        if stop.requested():
            install()
        return True

    install()
    whisper.assign_encoder_begin_callback(parameters, remove)
    try:
        with stop.notifying(install):
            yield
    finally:
        whisper.clear_encoder_begin_callback(parameters)  # or the callback and the parameters keep each other alive
