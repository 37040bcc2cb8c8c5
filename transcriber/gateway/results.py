"""What the workers publish, from one raw subscription for each stream to the client that waits for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from transcriber.gateway.native import json_loads
from transcriber.protocol.outgoing import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from transcriber.broker.direct import DirectLine
    from transcriber.gateway.channel import Channel

log = logging.getLogger(__name__)


class Hearer(Protocol):
    """Gets what is said about a channel, and must not raise: all clients share the connection to NATS."""

    def hear(self, number: int, message: Mapping[str, Any]) -> None: ...
    def deserted(self, number: int) -> None: ...


class Results:
    """One callback for all subscriptions: a closure for each would cost more than the rest of a stream's state."""

    def __init__(self, line: DirectLine) -> None:
        self._line = line
        self._hearers: dict[bytes, tuple[Hearer, int]] = {}  # by the stream's name

    def listen(self, channel: Channel, hearer: Hearer, number: int) -> None:
        """Pass on what is published about the channel's stream."""
        self._hearers[channel.stream.encode()] = hearer, number
        channel.subscription = self._line.listen(f"transcript.{channel.stream}.*", self._take)

    def ignore(self, channel: Channel) -> None:
        """Pass on nothing more."""
        self._line.ignore(channel.subscription)
        self._hearers.pop(channel.stream.encode(), None)

    def move(self, channel: Channel, stream: str) -> list[Mapping[str, Any]]:
        """Have a channel go on as another stream. Returns what to tell."""
        hearer, number = self._hearers[channel.stream.encode()]
        self.ignore(channel)
        said = channel.move(stream)
        self.listen(channel, hearer, number)
        return said

    def deserted(self, stream: bytes) -> None:
        """Tell that nobody hears a stream."""
        if (found := self._hearers.get(stream)) is not None:
            hearer, number = found
            hearer.deserted(number)

    def _take(self, subject: bytes, _block: bytes, payload: bytes) -> None:
        found = self._hearers.get(subject.split(b".", 2)[1])
        if found is None:
            return
        try:
            message = json_loads(payload)
            ours = message["v"] == VERSION and isinstance(message["type"], str) and isinstance(message["session"], str)
        except (ValueError, KeyError, TypeError, RecursionError):
            ours = False
        if not ours:
            log.warning("skipped a message that is not of this protocol", extra={"limited": True})
            return
        hearer, number = found
        hearer.hear(number, message)
