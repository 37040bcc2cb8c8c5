"""Decodes one window: a first pass, and further ones while its text is in doubt."""

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


class DecodedWindow(NamedTuple):
    """The text of a window, and how many passes it took."""

    recognition: Recognition
    passes: int


def decode(engine: Engine, window: Window, stop: Stop | None, may_repeat: Callable[[float], bool]) -> DecodedWindow:
    """Decode a window until its text is not in doubt, at most `ATTEMPTS` times. Raises what the engine raises.

    A text that is in doubt only for its low confidence gets one more pass: a third pass hardly ever raised it.

    `may_repeat` gets the most work that a further pass may take, and says whether it may run. The last pass counts,
    unless it is empty or in doubt too. Then the pass with the highest confidence counts. The guards review the result.
    """
    tried = [engine.transcribe(window.samples, window.language, stop, guidance=window.guidance)]
    while (
        len(tried) < ATTEMPTS
        and hallucinations.doubtful(tried[-1], window, runaway_only=len(tried) > 1)
        and may_repeat(engine.work(window.end - window.start, attempt=len(tried)))
    ):
        attempt = len(tried)
        tried.append(
            engine.transcribe(window.samples, window.language, stop, attempt=attempt, guidance=window.guidance)
        )
    silent = any(not decoded.segments for decoded in tried[1:])
    unsure = len(tried) > 1 and all(map(hallucinations.very_unsure, tried))
    recognition = hallucinations.review(window, _best(tried, window), engine.model, silent=silent, unsure=unsure)
    return DecodedWindow(recognition, len(tried))


def _best(tried: list[Decoded], window: Window) -> Decoded:
    """The last pass; if it is empty or in doubt, the most confident pass whose words had time to be said."""
    if tried[-1].segments and not hallucinations.doubtful(tried[-1], window):
        return tried[-1]
    return max(tried, key=lambda decoded: hallucinations.weight(decoded, window))
