"""Remembers the names of ended sessions, which no later session may have."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transcriber.domain.timeline import Origin

_REMEMBERED = 10_000  # ended session ids, about 2 MB: enough for MAX_STREAMS streams with ten restarts each


class UsedNames:
    """Names of ended sessions by stream, the newest last."""

    def __init__(self) -> None:
        self.ended: OrderedDict[tuple[str, str], int] = OrderedDict()

    def unused(self, stream: str, requested_id: str, taken: Iterable[tuple[str, str]]) -> str:
        """Return the id that a chunk requests, with a number appended if a session of that name has ended.

        No name is used twice, even if a producer itself calls a session `<session>.2` or takes a generated name.
        `taken`: streams and names of the sessions that are not settled yet.
        """
        times = self.ended.get((stream, requested_id), 0)
        name = f"{requested_id}.{times + 1}" if times else requested_id
        while (stream, name) in self.ended or (stream, name) in taken:
            times += 1
            name = f"{requested_id}.{times + 1}"
        return name

    def remember(self, origin: Origin, requested_id: str | None) -> None:
        """Note that a session is over: its name and the one that its chunks asked for are used."""
        names = {origin.session}
        if requested_id is not None and origin.session.startswith(requested_id):
            names.add(requested_id)
        for used in names:
            self.ended[origin.stream, used] = self.ended.pop((origin.stream, used), 0) + 1
        while len(self.ended) > _REMEMBERED:
            self.ended.popitem(last=False)
