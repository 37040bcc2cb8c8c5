"""What the server says about partitions that nobody hears, and names that avoid them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from transcriber.gateway.owners import Owners
from transcriber.protocol.partitions import FleetOptions, partition_of

FLEET = FleetOptions("f", partitions=4)


class Line:
    """Keeps who listens."""

    def listen(self, _subject: str, take: Callable[[bytes, bytes, bytes], None]) -> int:
        self.take = take
        return 1


async def test_name_avoids_partitions_that_nobody_hears() -> None:
    """Until none is left. Only the answer for nobody counts."""
    line, deserted = Line(), list[bytes]()
    owners = Owners(FLEET, line, deserted.append)  # type: ignore[arg-type]
    owners.start()
    numbers = itertools.count()
    alone: set[int] = set()
    while (name := owners.name(lambda: f"s{next(numbers)}")) is not None:
        partition = partition_of(name, FLEET.partitions)
        assert partition not in alone
        subject, inbox = owners.asking(name).split(b" ")
        assert subject == owners.subject(name) == f"audio.{partition}.{name}".encode()
        line.take(inbox, b"NATS/1.0 100 Idle Heartbeat\r\n\r\n", b"")
        assert deserted == []
        line.take(inbox, b"NATS/1.0 503\r\n\r\n", b"")
        assert deserted == [name.encode()]
        deserted.clear()
        alone.add(partition)
    assert alone == {0, 1, 2, 3}
