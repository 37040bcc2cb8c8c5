"""One window through the engine: the first pass, and those that follow while its text is in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from transcriber.worker import hallucinations
from transcriber.worker.engine import ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from transcriber.domain.results import Recognition
    from transcriber.domain.timeline import Window
    from transcriber.worker.cancellation import Stop
    from transcriber.worker.engine import Decoded, Engine


class Read(NamedTuple):
    """What was read in a window, and in how many passes."""

    recognition: Recognition
    passes: int


def decode(engine: Engine, window: Window, stop: Stop | None, may_repeat: Callable[[float], bool]) -> Read:
    """Decode a window until its text is beyond doubt, at most `ATTEMPTS` times. Raises as the engine does.

    A text that is only unsure of itself gets one more pass: a third one hardly ever made it surer.

    `may_repeat` is asked before each further pass, with the work that it may take. The last pass stands, unless it says
    that nobody speaks or is in doubt too: then the surest of them does, and what is in it is weighed by the guards.
    """
    tried = [engine.transcribe(window.samples, window.language, stop)]
    while (
        len(tried) < ATTEMPTS
        and hallucinations.doubtful(tried[-1], window, runaway_only=len(tried) > 1)
        and may_repeat(engine.work(window.end - window.start, attempt=len(tried)))
    ):
        tried.append(engine.transcribe(window.samples, window.language, stop, attempt=len(tried)))
    silent = any(not decoded.segments for decoded in tried[1:])
    unsure = len(tried) > 1 and all(map(hallucinations.very_unsure, tried))
    recognition = hallucinations.review(window, _best(tried, window), engine.model, silent=silent, unsure=unsure)
    return Read(recognition, len(tried))


def _best(tried: list[Decoded], window: Window) -> Decoded:
    """The last pass, or where that is empty or in doubt, the one whose words are surest and had time."""
    if tried[-1].segments and not hallucinations.doubtful(tried[-1], window):
        return tried[-1]
    return max(tried, key=lambda decoded: hallucinations.weight(decoded, window))
