"""What a dialect of live speech is: it hears the client and the daemon, and answers with commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from transcriber.domain.chunks import AudioFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """How a channel of a client is heard. `None` leaves a choice to the daemon.

    `model`: as the client names it; the caller may know it or not. `speech`: ask for events when a window opens and
    closes. `endpointing_ms`: the pause that ends a window.
    """

    format: AudioFormat
    model: str | None = None
    language: str | None = None
    prompt: str | None = None
    translate: bool = False
    partials: bool = True
    speech: bool = False
    endpointing_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Begin:
    """Open a session for a channel. A second one on the same channel ends the first."""

    hearing: Hearing
    channel: int = 0


@dataclass(frozen=True, slots=True)
class Audio:
    """Publish whole sample frames in the channel's format."""

    pcm: bytes
    channel: int = 0


@dataclass(frozen=True, slots=True)
class Flush:
    """Close the open window now. The daemon's `flushed` comes after everything before it is settled."""

    channel: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """End the session. The daemon's `ended` comes after everything before it is settled."""

    channel: int = 0


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Say that the client is still there, without audio."""

    channel: int = 0


@dataclass(frozen=True, slots=True)
class Send:
    """Send the client a message: text, or bytes for a binary one. `optional`: may be dropped if it reads slowly."""

    message: str | bytes
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """Close the client's connection with a WebSocket close code."""

    code: int
    reason: str = ""


ForWorkers = Begin | Audio | Flush | End | Keepalive
Command = ForWorkers | Send | Close


class Dialect(Protocol):
    """One connection's side of a protocol. The caller carries out the commands in their order.

    After `Close` nothing is called any more. When the client is gone, the caller ends every session itself.
    """

    max_message: int  # bytes: a longer message of the client closes the connection (1009)

    def opened(self) -> Iterable[Command]:
        """The connection is open."""
        ...

    def received(self, message: str | bytes) -> Iterable[Command]:
        """The client has sent one message: text, or bytes if it was binary."""
        ...

    def passes(self, pcm: bytes) -> bool:
        """Whether all that `received` would ask for is to publish this on the channel 0, which has an open session.

        If so, it counts as received, and `received` is not called. That is the short way of nearly all chunks.
        """
        ...

    def heard(self, channel: int, message: Mapping[str, Any]) -> Iterable[Command]:
        """The daemon has published a result or an event of this channel's session, as in docs/protocol.md.

        Its times are seconds of the session. Sessions that a channel had before are over by then.
        """
        ...

    def refused(self, channel: int, reason: str, start: float, end: float) -> Iterable[Command]:
        """The gateway itself could not have [start, end) of a channel transcribed, in seconds of the session."""
        ...

    def tick(self, now: float) -> Iterable[Command]:
        """About a second has passed; `now` is seconds of a monotonic clock."""
        ...
