"""Names of sessions that ended: no later one may have them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transcriber.domain.timeline import Origin

_REMEMBERED = 10_000  # ended session ids, about 2 MB: enough for MAX_STREAMS streams with ten restarts each


class UsedNames:
    """By stream, the newest last."""

    def __init__(self) -> None:
        self.ended: OrderedDict[tuple[str, str], int] = OrderedDict()

    def unused(self, stream: str, asked: str, taken: Iterable[tuple[str, str]]) -> str:
        """Return the id that a chunk asks for, with a number after it when that session has ended already.

        A producer may itself call a session `<session>.2`, or what we had generated: no name is given out twice.
        `taken` holds the sessions, by stream, that are not settled yet.
        """
        times = self.ended.get((stream, asked), 0)
        name = f"{asked}.{times + 1}" if times else asked
        while (stream, name) in self.ended or (stream, name) in taken:
            times += 1
            name = f"{asked}.{times + 1}"
        return name

    def remember(self, origin: Origin, asked: str | None) -> None:
        """A session is over: its name, and the one that it asked for, are used."""
        for used in {origin.session} | ({asked} if asked is not None and origin.session.startswith(asked) else set()):
            self.ended[origin.stream, used] = self.ended.pop((origin.stream, used), 0) + 1
        while len(self.ended) > _REMEMBERED:
            self.ended.popitem(last=False)
