"""What one channel of a Deepgram client is owed: answers to Finalize, and the ends of its utterances. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from transcriber.gateway.dialects.pace import PRE_ROLL, Pace

if TYPE_CHECKING:
    from transcriber.gateway.dialects.channel import Channel


class Utterance:
    """Decides when nobody has said a word for `pause` seconds. Times are seconds of the channel's audio."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._word: float | None = None  # the end of the last word of a final, until its utterance has ended
        self._open: set[float] = set()  # where windows begin whose text is not known yet

    def opened(self, start: float) -> float | None:
        """A window has opened. Returns the end of the last word before it, if the pause was long enough."""
        due = self._due(start + PRE_ROLL)
        self._open.add(start)
        return due

    def settled(self, end: float, word: float | None = None) -> None:
        """Everything before `end` is decided. `word`: the end of the last word in it."""
        self._open = {start for start in self._open if start >= end}
        if word is not None:
            self._word = word

    def silent(self, until: float) -> float | None:
        """No window has opened before `until`. Returns the end of the last word, if the pause is long enough."""
        return self._due(until)

    def _due(self, until: float) -> float | None:
        word = self._word
        if word is None or self._open or until - word < self._pause:
            return None
        self._word = None
        return word


@dataclass(slots=True)
class Line:
    """One channel."""

    channel: Channel
    utterance: Utterance | None = None
    pace: Pace = field(default_factory=Pace)
    owed: int = 0  # Finalize messages that are not settled
    answered: bool = False  # the oldest of them has its result

    def take_answer(self) -> bool:
        """Whether a result that a flush has brought is the answer to Finalize, which has only one."""
        if not self.owed or self.answered:
            return False
        self.answered = True
        return True

    def settle_flush(self) -> bool:
        """A flush is settled. Returns whether Finalize still lacks its answer."""
        if not self.owed:
            return False
        self.owed -= 1
        lacking, self.answered = not self.answered, False
        return lacking

    def silence(self, until: float | None = None) -> float | None:
        """Returns the end of the last word, if its utterance has ended. `until`: as far as silence is certain."""
        if self.utterance is None:
            return None
        return self.utterance.silent(self.pace.certain(self.channel.heard) if until is None else until)
