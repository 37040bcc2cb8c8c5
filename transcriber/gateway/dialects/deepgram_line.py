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

    def opened(self, start: float) -> None:
        """A window has opened."""
        self._open.add(start)

    def settled(self, end: float, word: float | None = None) -> None:
        """Everything before `end` is decided. `word`: the end of the last word in it."""
        self._open = {start for start in self._open if start >= end}
        if word is not None:
            self._word = word

    def lost(self, start: float, end: float) -> None:
        """[start, end) has no text. Windows before it may still wait for theirs."""
        self._open = {window for window in self._open if not start <= window < end}

    def over(self, until: float) -> float | None:
        """Returns the end of the last word, once, if the pause after it is long enough.

        `until`: up to where no window has opened besides those that are known.
        """
        silence = min(self._open) + PRE_ROLL if self._open else until
        word = self._word
        if word is None or silence - word < self._pause:
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

    def utterance_over(self, until: float = 0.0) -> float | None:
        """Returns the end of the last word, once, if its utterance is over. `until`: as far as silence is certain."""
        if self.utterance is None:
            return None
        return self.utterance.over(max(until, self.pace.certain(self.channel.heard)))
