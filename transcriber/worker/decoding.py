"""Decodes windows: a first pass, and further ones over those whose text is in doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from transcriber.worker import hallucinations
from transcriber.worker.engine import ATTEMPTS, Speech

if TYPE_CHECKING:
    from transcriber.domain.results import Recognition
    from transcriber.domain.timeline import Window
    from transcriber.worker.cancellation import Stop
    from transcriber.worker.engine import Decoded, Engine

# Gets the places of windows in their batch, and the most work of each in a further pass. Says whether it may run.
MayRepeat = Callable[[Sequence[int], Sequence[float]], bool]


class DecodedWindow(NamedTuple):
    """The text of a window, and how many passes it took."""

    recognition: Recognition
    passes: int


def decode(engine: Engine, window: Window, *, quick: bool = False) -> DecodedWindow:
    """Decode one window with all the passes it needs. Raises what the engine raises."""
    (decoded,) = (found[0] for found in decode_batch(engine, [window], None, _always, quick=quick) if found)
    return decoded


def decode_batch(
    engine: Engine, windows: Sequence[Window], stop: Stop | None, may_repeat: MayRepeat, *, quick: bool = False
) -> Iterator[dict[int, DecodedWindow]]:
    """Decode windows in one pass, then those in doubt in another, at most `ATTEMPTS` times.

    After each pass, yields the windows that are done, by their places. Raises what the engine raises.

    A text that is in doubt only for its low confidence gets one more pass: a third pass hardly ever raised it. The last
    pass over a window counts, unless it is empty or in doubt too. Then the pass with the highest confidence counts. The
    guards review the result.
    """
    tried: dict[int, list[Decoded]] = {place: [] for place in range(len(windows))}
    for attempt in range(ATTEMPTS):
        speech = [Speech(w.samples, w.language, w.guidance) for w in (windows[place] for place in tried)]
        found = engine.transcribe_many(speech, stop, attempt=attempt, quick=quick)
        for passes, decoded in zip(tried.values(), found, strict=True):
            passes.append(decoded)
        again = _again(engine, windows, tried, may_repeat)
        yield {place: _reviewed(engine, windows[place], tried.pop(place)) for place in [*tried] if place not in again}
        if not tried:
            return


def _again(
    engine: Engine, windows: Sequence[Window], tried: dict[int, list[Decoded]], may_repeat: MayRepeat
) -> list[int]:
    """The places of windows to decode once more, as many as may be."""
    places: list[int] = []
    works: list[float] = []
    for place, passes in tried.items():
        window, attempt = windows[place], len(passes)
        if attempt == ATTEMPTS or not hallucinations.doubtful(passes[-1], window, runaway_only=attempt > 1):
            continue
        work = engine.work(window.end - window.start, attempt=attempt)
        if may_repeat([*places, place], [*works, work]):
            places.append(place)
            works.append(work)
    return places


def _reviewed(engine: Engine, window: Window, tried: list[Decoded]) -> DecodedWindow:
    silent = any(not decoded.segments for decoded in tried[1:])
    unsure = len(tried) > 1 and all(map(hallucinations.very_unsure, tried))
    recognition = hallucinations.review(window, _best(tried, window), engine.model, silent=silent, unsure=unsure)
    return DecodedWindow(recognition, len(tried))


def _best(tried: list[Decoded], window: Window) -> Decoded:
    """The last pass; if it is empty or in doubt, the most confident pass whose words had time to be said."""
    if tried[-1].segments and not hallucinations.doubtful(tried[-1], window):
        return tried[-1]
    return max(tried, key=lambda decoded: hallucinations.weight(decoded, window))


def _always(_places: Sequence[int], _works: Sequence[float]) -> bool:
    return True
