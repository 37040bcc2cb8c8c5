"""The decoder's input and targets for one window: Whisper's tokens, with and without timestamps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sentences import VOCABULARY
from voices import UNKNOWN
from whisper.tokenizer import get_tokenizer

if TYPE_CHECKING:
    from random import Random

    from windows import Window

TOKENIZER = get_tokenizer(multilingual=False)
SOT, EOT, PREV = TOKENIZER.sot, TOKENIZER.eot, TOKENIZER.sot_prev
NO_SPEECH, NO_TIMESTAMPS, TIME0 = TOKENIZER.no_speech, TOKENIZER.no_timestamps, TOKENIZER.timestamp_begin
POSITION = 320  # samples of an encoder position, 20 ms; also the step of the timestamps
POSITIONS = 1500
IGNORE = -100
# In place of the timestamp that shares a target: any timestamp, or none, as if none were requested.
ANYWHEN, UNTIMED = -1, -2


class Targets:
    """Decoder input and targets of one window.

    `targets` are tokens or `IGNORE`; `times` the timestamp that shares a target, `ANYWHEN`, `UNTIMED`, or None.
    `garbled`: the speech is unintelligible.
    """

    def __init__(self, window: Window, r: Random, *, garbled: bool = False) -> None:
        self.garbled = garbled
        self.inputs: list[int] = [SOT]
        self.targets: list[int] = []
        self.times: list[int | None] = []
        self.text: list[int] = []
        if window.speech is None:
            self._nothing(r)
        else:
            self._spoken(window, window.speech.words, window.speech.starts, r)

    def _next(self, target: int, stamp: int | None = None, *, fed: int | None = None) -> None:
        self.targets.append(target)
        self.times.append(stamp)
        self.inputs.append(target if fed is None else fed)

    def _nothing(self, r: Random) -> None:
        """Nothing was said: the text ends at once, after any timestamp that whisper.cpp may take first."""
        self._next(NO_SPEECH, fed=NO_TIMESTAMPS if r.random() < 0.3 else TIME0 + r.randint(0, 50))
        self._next(EOT)
        self.inputs.pop()

    def _spoken(self, window: Window, words: list[str], starts: list[int], r: Random) -> None:
        if r.random() < 0.15:  # earlier text, not trained; now and then the same text, which must not be skipped
            earlier = words if r.random() < 0.2 else r.choices(VOCABULARY, k=r.randint(1, 12))
            self.inputs = [PREV, *TOKENIZER.encode(" " + " ".join(earlier)), SOT]
            self.targets = [IGNORE] * (len(self.inputs) - 1)
            self.times = [None] * len(self.targets)
        timed = r.random() < 0.6
        if timed:
            self._next(TIME0 + round(window.first / POSITION))
        else:
            self._next(IGNORE, fed=NO_TIMESTAMPS)
        for word, start in zip(words, starts, strict=True):
            stamp = UNTIMED if not timed else ANYWHEN if start == UNKNOWN else TIME0 + round(start / POSITION)
            first, *rest = TOKENIZER.encode(" " + word)
            self._next(first, stamp if self.text or not timed else None)
            for token in rest:
                self._next(token, None if timed else UNTIMED)
            self.text += [first, *rest]
        if timed:
            self._next(TIME0 + min(math.ceil(window.end / POSITION), POSITIONS))
        self._next(EOT)
        self.inputs.pop()
