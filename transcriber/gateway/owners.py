"""In a fleet: notices at once that nobody hears a stream, and finds a name under which somebody will."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from transcriber.protocol.partitions import partition_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from transcriber.broker.direct import DirectLine
    from transcriber.protocol.partitions import FleetOptions

_FRESH_SECS = 10.0  # for so long a partition may be without owner: a member's lease, and as much again to take over
_TRIES = 64  # names: with nine of ten partitions alone, all of them fail once in 800 times
_NOBODY = b"NATS/1.0 503"  # what the server answers when nobody is subscribed


class Owners:
    """Knows which partitions have no owner, as far as the server has said so.

    Audio that names an inbox is answered by the server when nobody hears it. That takes milliseconds, where a dead
    member's lease takes seconds. `deserted` gets the name of such a stream.
    """

    def __init__(self, fleet: FleetOptions, line: DirectLine, deserted: Callable[[bytes], object]) -> None:
        self._fleet = fleet
        self._line = line
        self._deserted = deserted
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._alone: dict[int, float] = {}  # by partition: when nobody heard it

    def start(self) -> None:
        """Listen to the server's answers."""
        self._line.listen(f"{self._inbox}.*", self._take)

    def subject(self, stream: str) -> bytes:
        """Where a stream's audio goes."""
        return self._fleet.subject_of(stream).encode()

    def asking(self, stream: str) -> bytes:
        """The same, for a message that asks whether anybody is there."""
        return f"{self._fleet.subject_of(stream)} {self._inbox}.{stream}".encode()

    def name(self, make: Callable[[], str]) -> str | None:
        """Return a name whose partition may have an owner; None if none is known that may."""
        since = asyncio.get_running_loop().time() - _FRESH_SECS
        for _ in range(_TRIES):
            name = make()
            if self._alone.get(partition_of(name, self._fleet.partitions), since) <= since:
                return name
        return None

    def _take(self, subject: bytes, block: bytes, _payload: bytes) -> None:
        if block.startswith(_NOBODY):
            stream = subject.rpartition(b".")[2]
            partition = partition_of(stream.decode(), self._fleet.partitions)
            self._alone[partition] = asyncio.get_running_loop().time()
            self._deserted(stream)
