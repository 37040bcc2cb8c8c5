"""One channel of a client: whole sample frames, a session from the first audio on, one clock. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transcriber.gateway.dialects.dialect import Audio, Begin, Command, End, Flush

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from transcriber.gateway.dialects.dialect import Hearing


class Channel:
    """Turns a client's bytes into commands for one channel.

    `open`: a session is under way. `base`: where it begins on the client's clock, in seconds of audio.
    """

    def __init__(self, hearing: Hearing, number: int = 0) -> None:
        self.hearing = hearing
        self.open = False
        self.base = 0.0
        self._number = number
        self._rest = b""
        self._sent = 0  # sample frames

    @property
    def heard(self) -> float:
        """Seconds of audio so far."""
        return self._sent / self.hearing.format.rate

    def audio(self, data: bytes) -> Iterator[Command]:
        """Send what is whole in sample frames; the rest waits for the next bytes."""
        size = self.hearing.format.frame_bytes
        data = self._rest + data if self._rest else data
        whole = len(data) - len(data) % size
        self._rest = data[whole:]
        if not whole:
            return
        if not self.open:
            self.open = True
            self.base = self.heard
            yield Begin(self.hearing, self._number)
        self._sent += whole // size
        yield Audio(data[:whole] if self._rest else data, self._number)

    def passes(self, data: bytes) -> bool:
        """Whether `audio` would only send this as it is; if so, it counts as sent."""
        frames, broken = divmod(len(data), self.hearing.format.frame_bytes)
        if not self.open or self._rest or broken or not frames:
            return False
        self._sent += frames
        return True

    def flush(self) -> Iterator[Command]:
        """Ask for the end of the open window, if there is a session. `flushed` is the answer."""
        if self.open:
            yield Flush(self._number)

    def end(self) -> Iterator[Command]:
        """End the session, if there is one. `ended` is the answer."""
        if self.open:
            yield End(self._number)

    def ended(self) -> None:
        """The daemon has ended the session. More audio begins another."""
        self.open = False

    def at(self, seconds: float) -> float:
        """A time of the session on the client's clock."""
        return self.base + seconds


def words(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The words of a final or partial, as the daemon publishes them. A truncated one has none."""
    return [word for segment in result.get("segments", ()) for word in segment.get("words", ())]
