"""How much of a client's audio the daemon has surely looked at, where it says nothing because nobody speaks. Pure."""

from __future__ import annotations

# Seconds of audio until the daemon tells of a window after its first word began. It opens when 3 of 4 frames of 30 ms
# are voiced (audio/segmenter.py). One more may wait to be whole, and one to be looked at. Word of it takes up to 60 ms.
NOTICE = 0.24
# Seconds before its first voiced frame at which a window begins (audio/segmenter.py).
PRE_ROLL = 0.3
# A client that sends more than this in a second does not speak live. Then audio may wait to be looked at.
_LIVE_SPEED, _JITTER = 1.25, 0.5  # seconds of audio a second, and seconds


class Pace:
    """Says up to where silence is certain.

    A live client's audio is looked at as soon as it is there. Audio from a file may wait on its way, so it counts from
    the second tick on, which is a second later.
    """

    def __init__(self) -> None:
        self._live = False
        self._ticked: tuple[float, float] | None = None  # the last tick's time, and the seconds sent until then

    def tick(self, now: float, sent: float) -> float:
        """A second has passed, and `sent` seconds of audio were sent. Returns up to where silence is certain."""
        before, self._ticked = self._ticked, (now, sent)
        if before is None:
            return 0.0
        self._live = sent - before[1] <= (now - before[0]) * _LIVE_SPEED + _JITTER
        return max(self.certain(sent), before[1] - NOTICE)

    def certain(self, sent: float) -> float:
        """Up to where silence is certain, in seconds. 0 as long as the client's pace is unknown or not live."""
        return sent - NOTICE if self._live else 0.0
